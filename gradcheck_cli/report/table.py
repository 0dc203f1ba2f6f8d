"""The report as a person reads it in a terminal."""

from __future__ import annotations

from rich.text import Text

from gradcheck_cli.records import Report
from gradcheck_cli.report.clip import clip_sections
from gradcheck_cli.report.comparison import comparison_list, states_of
from gradcheck_cli.report.depth_plot import depth_plot
from gradcheck_cli.report.findings import finding_list, not_evaluated_list
from gradcheck_cli.report.header import header
from gradcheck_cli.report.layer_table import extremes, layer_table
from gradcheck_cli.report.lines import to_string
from gradcheck_cli.report.nan_trace import trace_sections
from gradcheck_cli.report.rank_rows import ranks_to_show
from gradcheck_cli.report.rank_table import rank_table
from gradcheck_cli.report.verdict import failure, verdict
from gradcheck_cli.report.view import View


def render_table(report: Report, view: View) -> str:
    """Sections apart from each other, model after model, no line wider than the view; ANSI only if it is in colour."""
    sections = [section for one in (report, *report.others) for section in choose_sections(one, view)]
    lines = [line for section in sections if section for line in [Text(""), *section]]
    return to_string(lines[1:], view)


def choose_sections(report: Report, view: View) -> list[list[Text]]:
    """Those of the command."""
    if report.trace is not None:
        return trace_sections(report, report.trace, view)
    if report.clip is not None:
        return clip_sections(report, report.clip, view)
    return audit_sections(report, view) if report.command == "audit" else profile_sections(report, view)


def audit_sections(report: Report, view: View) -> list[list[Text]]:
    """Header, findings, what became of the baseline, and verdict."""
    return [
        header(report, view),
        finding_list(report.diagnosis.findings, view, states_of(report)),
        comparison_list(report, view),
        not_evaluated_list(report.diagnosis.not_evaluated, view),
        failure(report, view),
        verdict(report, view),
    ]


def profile_sections(report: Report, view: View) -> list[list[Text]]:
    """Header, layers, depth plot, ranks, findings, what became of the baseline, and verdict."""
    return [
        header(report, view),
        layer_table(report.layers, view),
        extremes(report.layers, view),
        depth_plot(report.layers, view),
        rank_table(ranks_to_show(report), view),
        finding_list(report.diagnosis.findings, view, states_of(report)),
        comparison_list(report, view),
        not_evaluated_list(report.diagnosis.not_evaluated, view),
        failure(report, view),
        verdict(report, view),
    ]
