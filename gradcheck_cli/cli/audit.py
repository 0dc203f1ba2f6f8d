"""gradcheck audit"""

from __future__ import annotations

from gradcheck_cli.cli import gate_options as g
from gradcheck_cli.cli import options as o
from gradcheck_cli.cli.format_options import Format, Output, StepSummary
from gradcheck_cli.cli.log_options import Log


def audit(
    script: o.ScriptPath = None,
    arguments: o.Arguments = None,
    module: o.Module = None,
    steps: o.ScriptSteps = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    baseline: g.Baseline = None,
    accept: g.Accept = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: Format = None,
    output: Output = None,
    log: Log = None,
    step_summary: StepSummary = None,
    write_baseline: g.WriteBaseline = None,
    quiet: o.Quiet = None,
) -> None:
    """Run a training script as it is, and say what is wrong with the order of its loop's calls."""
    flags = o.given(locals())
    from gradcheck_cli.cli.gate import keep, prepare_gate
    from gradcheck_cli.cli.messages import show_error
    from gradcheck_cli.cli.output import check_outputs, publish
    from gradcheck_cli.cli.ranks import finish, run
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_script_settings
    from gradcheck_cli.config_targets import find_script
    from gradcheck_cli.report.view import View

    what, own = find_script(script, module, arguments, config)
    settings = load_script_settings(flags, config, own)
    outputs = check_outputs(settings)
    gate = prepare_gate("audit", settings)
    stdout = reserve_stdout()
    report, error = run("audit", what, settings)
    report = gate.judge(report)
    try:
        publish(report, settings, outputs, stdout, View.of(stdout))
        keep(gate, report, settings)
    finally:
        if error:
            show_error(error)
    finish(report)
