"""The table of ranks in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.records import Report
from gradcheck_cli.report.markup import code, prose, row, table_head
from gradcheck_cli.report.parts import Part
from gradcheck_cli.report.rank_rows import (
    TITLE,
    choose_rows,
    describe_left_out,
    make_columns,
    make_rows,
    ranks_to_show,
)
from gradcheck_cli.report.view import View


def rank_parts(report: Report, view: View) -> Iterator[Part]:
    """A row for each rank that is shown; nothing for a run of one process."""
    ranks = ranks_to_show(report)
    if ranks is None:
        return
    rows = make_rows(ranks)
    shown = choose_rows(rows, view)
    columns = [column for column in make_columns(shown, view) if column.width]
    titles = ["rank", "host", *(" ".join(filter(None, column.title)) for column in columns)]
    head = f"### {prose(TITLE.capitalize(), view)}\n\n{table_head(titles, [True, False, *[True] * len(columns)])}"
    items = (
        row([str(one.rank), code(one.host, view), *(prose(column.cells[index].plain, view) for column in columns)])
        for index, one in enumerate(shown)
    )
    more = "".join(f"\n{prose(text, view)}\n" for text in describe_left_out(rows, shown))
    yield Part(head, tuple(items), f"{more}\n", "row")
