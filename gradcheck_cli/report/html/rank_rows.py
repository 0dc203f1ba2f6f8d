"""The table of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradcheck_cli.ranks import Ranks
from gradcheck_cli.report.html.words import VIEW
from gradcheck_cli.report.rank_rows import FIGURES, choose_rows, describe_left_out, make_columns, make_rows
from gradcheck_cli.report.view import View


@dataclass(frozen=True)
class RankTable:
    """Each row is a rank, its host and its figures; `notes` say what is not shown."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[tuple[int, str, Sequence[str]]]
    notes: Sequence[str]


def make_rank_table(ranks: Ranks | None, view: View) -> RankTable | None:
    """Of the view, whether all ranks are wanted counts; None for a run of one process."""
    if ranks is None:
        return None
    rows = make_rows(ranks)
    shown = choose_rows(rows, view)
    columns = [column for column in make_columns(shown, VIEW) if column.width]
    return RankTable(
        FIGURES,
        [" ".join(filter(None, column.title)) for column in columns],
        [(row.rank, row.host, [column.cells[i].plain for column in columns]) for i, row in enumerate(shown)],
        describe_left_out(rows, shown),
    )
