"""gradcheck audit"""

from __future__ import annotations

import typer

from gradcheck_cli.cli import options as o


def audit(
    script: o.ScriptPath = None,
    arguments: o.Arguments = None,
    module: o.Module = None,
    steps: o.ScriptSteps = None,
    select: o.Select = None,
    ignore: o.Ignore = None,
    fail_on: o.FailOn = None,
    config: o.Config = None,
    format_: o.Format = None,
    output: o.Output = None,
    quiet: o.Quiet = None,
) -> None:
    """Run a training script as it is, and say what is wrong with the order of its loop's calls."""
    flags = o.given(locals())
    from gradcheck_cli.cli.messages import progress_bar, show_error
    from gradcheck_cli.cli.output import check_outputs, publish
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_script_settings
    from gradcheck_cli.report.view import View
    from gradcheck_cli.targets import read_script

    what = read_script(script, module, arguments)
    settings = load_script_settings(flags, config)
    outputs = check_outputs(settings)
    stdout = reserve_stdout()
    from gradcheck_cli import pipeline

    with progress_bar(settings.quiet) as watch:
        report, error = pipeline.audit(what, settings, watch)
    try:
        publish(report, settings, outputs, stdout, View.of(stdout))
    finally:
        if error:
            show_error(error)
    raise typer.Exit(report.exit_code)
