"""gradcheck report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradcheck_cli.cli import gate_options as g
from gradcheck_cli.cli import options as o
from gradcheck_cli.cli.format_options import Format, Output, StepSummary

Run = Annotated[Path, typer.Argument(help="A recording, made with -o run.npz.", show_default=False)]


def report(
    run: Run,
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
    all_layers: o.AllLayers = False,
    depth: o.Depth = None,
    depth_plot: o.DepthPlot = None,
    step_summary: StepSummary = None,
    write_baseline: g.WriteBaseline = None,
    quiet: o.Quiet = None,
) -> None:
    """Judge and show a recorded run again, without running anything."""
    flags = o.given(locals())
    from gradcheck_cli.archive import load_all
    from gradcheck_cli.cli.gate import keep, prepare_gate
    from gradcheck_cli.cli.output import check_outputs, publish
    from gradcheck_cli.cli.streams import reserve_stdout
    from gradcheck_cli.config import load_settings
    from gradcheck_cli.judgement import join_reports, make_report
    from gradcheck_cli.report.view import View

    settings = load_settings(flags, config)
    outputs = check_outputs(settings)
    gate = prepare_gate("profile", settings)
    judged = gate.judge(join_reports([make_report("profile", recording, settings) for recording in load_all(run)]))
    stdout = reserve_stdout()
    view = View.of(stdout, all_layers=all_layers, depth=depth, depth_plot=depth_plot)
    publish(judged, settings, outputs, stdout, view)
    keep(gate, judged, settings)
    raise typer.Exit(judged.exit_code)
