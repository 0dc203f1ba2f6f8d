"""gradcheck profile"""

from __future__ import annotations

from gradcheck_cli.cli import gate_options as g
from gradcheck_cli.cli import options as o
from gradcheck_cli.cli import rank_options as r
from gradcheck_cli.cli.format_options import Format, Output, StepSummary
from gradcheck_cli.cli.log_options import Log


def profile(
    target: o.Target = None,
    arguments: o.Arguments = None,
    module: o.Module = None,
    steps: o.Steps = None,
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
    probe_every: o.ProbeEvery = None,
    max_recorded_steps: o.MaxRecordedSteps = None,
    stop_above: o.StopAbove = None,
    keep_going: o.KeepGoing = None,
    check_scale: o.CheckScale = None,
    large: o.Large = None,
    tiny: o.Tiny = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    baseline: g.Baseline = None,
    accept: g.Accept = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: Format = None,
    output: Output = None,
    log: Log = None,
    save: o.Save = None,
    all_layers: o.AllLayers = False,
    depth: o.Depth = None,
    depth_plot: o.DepthPlot = None,
    step_summary: StepSummary = None,
    write_baseline: g.WriteBaseline = None,
    quiet: o.Quiet = None,
) -> None:
    """Run a few training steps, measure gradients layer by layer, and say which layers are sick and why."""
    flags = o.given(locals())
    if all_layers and target is None and module is None:
        from gradcheck_cli.cli.all_targets import profile_all

        profile_all(flags, config)
    from gradcheck_cli.cli.gate import keep, prepare_gate
    from gradcheck_cli.cli.messages import show_error
    from gradcheck_cli.cli.output import check_outputs, publish
    from gradcheck_cli.cli.ranks import check_ranks, finish, run
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_script_settings, load_settings
    from gradcheck_cli.config_targets import find_target
    from gradcheck_cli.report.view import View
    from gradcheck_cli.targets import Script, check_flags

    what, own = find_target(target, module, arguments, config)
    check_flags(what, flags, ("check_scale",))
    check_ranks(what, flags)
    settings = (load_script_settings if isinstance(what, Script) else load_settings)(flags, config, own)
    outputs = check_outputs(settings)
    gate = prepare_gate("profile", settings)
    stdout = reserve_stdout()
    report, error = run("profile", what, settings)
    view = View.of(stdout, all_layers=all_layers, depth=depth, depth_plot=depth_plot)
    report = gate.judge(report)
    try:
        publish(report, settings, outputs, stdout, view)
        keep(gate, report, settings)
    finally:
        if error:
            show_error(error)
    finish(report)
