"""Every operation of a replayed step, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradcheck_cli.report.html.words import VIEW
from gradcheck_cli.report.operations import LEGEND, headings, make_columns, mark, style
from gradcheck_cli.tape import NanTrace


@dataclass(frozen=True)
class OperationRow:
    """`phase` where a new one begins, else ""; `style` is error for an origin, warning for what is not finite."""

    phase: str
    sign: str
    cells: Sequence[str]
    style: str


@dataclass(frozen=True)
class OperationTable:
    """As with --all-ops in the terminal."""

    headings: Sequence[str]
    rows: Sequence[OperationRow]
    legend: str = LEGEND


def make_operations(trace: NanTrace) -> OperationTable | None:
    """None where no step was replayed."""
    if not trace.operations:
        return None
    columns = make_columns(trace, VIEW)
    origins = {origin.operation for origin in trace.origins}
    rows = [
        OperationRow(phase, mark(one, VIEW).plain, [column.cells[row].plain for column in columns], style(one, origins))
        for row, (one, phase) in enumerate(zip(trace.operations, headings(trace.operations), strict=True))
    ]
    return OperationTable([column.title[1] for column in columns], rows)
