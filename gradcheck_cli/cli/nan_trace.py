"""gradcheck nan-trace"""

from __future__ import annotations

import typer

from gradcheck_cli.cli import options as o


def nan_trace(
    target: o.Target = None,
    arguments: o.Arguments = None,
    module: o.Module = None,
    steps: o.TraceSteps = None,
    device: o.Device = None,
    precision: o.Precision = None,
    accumulate: o.Accumulate = None,
    clip: o.Clip = None,
    seed: o.Seed = None,
    set_: o.Set = None,
    optimizer: o.OptimizerName = None,
    lr: o.LearningRate = None,
    checkpoint: o.Checkpoint = None,
    eval_: o.Eval = None,
    eager: o.Eager = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: o.Format = None,
    output: o.TextOutput = None,
    all_ops: o.AllOps = False,
    save_repro: o.SaveRepro = None,
    quiet: o.Quiet = None,
) -> None:
    """Train until something turns NaN or Inf, then say which operation on which line made it, and prove it."""
    flags = o.given(locals())
    from gradcheck_cli.cli.messages import progress_bar, show_error
    from gradcheck_cli.cli.output import check_folder, check_text_outputs, publish
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_trace_settings
    from gradcheck_cli.report.view import View
    from gradcheck_cli.targets import check_flags, read_target

    what = read_target(target, module, arguments)
    check_flags(what, flags)
    settings = load_trace_settings(flags, config)
    outputs, folder = check_text_outputs(settings), check_folder(save_repro)
    stdout = reserve_stdout()
    from gradcheck_cli import pipeline

    with progress_bar(settings.quiet) as watch:
        report, error = pipeline.nan_trace(what, settings, watch, save_repro=folder)
    try:
        publish(report, settings, outputs, stdout, View.of(stdout, all_ops=all_ops))
    finally:
        if error:
            show_error(error)
    raise typer.Exit(report.exit_code)
