"""What recommend-clip answers, as a person reads it in a terminal."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Report
from gradcheck_cli.report.clip_answer import answer, closing
from gradcheck_cli.report.clip_code import code_to_paste, group_values
from gradcheck_cli.report.clip_details import details
from gradcheck_cli.report.clip_histogram import histogram
from gradcheck_cli.report.clip_sparkline import sparkline
from gradcheck_cli.report.clip_tables import candidate_table, layer_shares, verified_table
from gradcheck_cli.report.clip_wording import is_norm_list
from gradcheck_cli.report.comparison import comparison_list, states_of
from gradcheck_cli.report.findings import finding_list, not_evaluated_list
from gradcheck_cli.report.header import header
from gradcheck_cli.report.lines import styled, wrap
from gradcheck_cli.report.verdict import failure
from gradcheck_cli.report.view import View


def clip_sections(report: Report, advice: ClipAdvice, view: View) -> list[list[Text]]:
    """The answer and what to paste first; then what it rests on, what else was found, and the verdict."""
    findings = finding_list(report.diagnosis.findings, view, states_of(report))
    first = advice.verdict == "fix-first"
    return [
        header(report, view, leave_out=unknown(report)),
        answer(report, advice, view),
        findings if first else [],
        [] if first else code_to_paste(report, advice, view),
        verified_table(advice, view),
        group_values(report, advice, view),
        histogram(advice, view),
        sparkline(report.series, advice, view),
        candidate_table(advice, view),
        layer_shares(advice, view),
        details(advice, view),
        [] if first else findings,
        comparison_list(report, view),
        not_evaluated_list(report.diagnosis.not_evaluated, view),
        remarks(advice, view),
        failure(report, view),
        closing(report, advice, view),
    ]


def unknown(report: Report) -> set[str]:
    """Labels of the header that say nothing here: norms have a picture of their own, a file of norms has no model."""
    labels = {"gradient norm"}
    if is_norm_list(report):
        labels |= {"parameters", "device", "overhead", "seed", "torch"}
    return labels if np.isfinite(report.series.loss).any() else labels | {"loss"}


def remarks(advice: ClipAdvice, view: View) -> list[Text]:
    """What to bear in mind, and what could not be had."""
    sentences = (*advice.caveats, *advice.notes)
    return [line for one in sentences for line in wrap(styled(view.prose(one)), view.width, " " * 8, "  note  ")]
