"""gradcheck nan-trace"""

from __future__ import annotations

from gradcheck_cli.cli import gate_options as g
from gradcheck_cli.cli import options as o
from gradcheck_cli.cli import rank_options as r
from gradcheck_cli.cli.format_options import Format, StepSummary, TextOutput


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
    nproc: r.Nproc = None,
    strategy: r.Strategy = None,
    timeout: r.Timeout = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    baseline: g.Baseline = None,
    accept: g.Accept = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: Format = None,
    output: TextOutput = None,
    all_ops: o.AllOps = False,
    save_repro: o.SaveRepro = None,
    step_summary: StepSummary = None,
    write_baseline: g.WriteBaseline = None,
    quiet: o.Quiet = None,
) -> None:
    """Train until something turns NaN or Inf, then say which operation on which line made it, and prove it."""
    flags = o.given(locals())
    from gradcheck_cli.cli.gate import keep, prepare_gate
    from gradcheck_cli.cli.messages import show_error
    from gradcheck_cli.cli.output import check_folder, check_text_outputs, publish
    from gradcheck_cli.cli.ranks import check_ranks, finish, run
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_trace_settings
    from gradcheck_cli.config_targets import find_target
    from gradcheck_cli.report.view import View
    from gradcheck_cli.targets import check_flags

    what, own = find_target(target, module, arguments, config)
    check_flags(what, flags)
    check_ranks(what, flags)
    settings = load_trace_settings(flags, config, own)
    outputs, folder = check_text_outputs(settings), check_folder(save_repro)
    gate = prepare_gate("nan-trace", settings)
    stdout = reserve_stdout()
    report, error = run("nan_trace", what, settings, save_repro=folder)
    report = gate.judge(report)
    try:
        publish(report, settings, outputs, stdout, View.of(stdout, all_ops=all_ops))
        keep(gate, report, settings)
    finally:
        if error:
            show_error(error)
    finish(report)
