"""The table of ranks: what each of them saw by itself."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from gradcheck_cli.ranks import Ranks
from gradcheck_cli.report.columns import keep_columns
from gradcheck_cli.report.layer_table import left_out_note, table_lines
from gradcheck_cli.report.lines import join, styled, wrap
from gradcheck_cli.report.rank_rows import TITLE, RankRow, choose_rows, describe_left_out, make_columns, make_rows
from gradcheck_cli.report.view import View


def rank_table(ranks: Ranks | None, view: View) -> list[Text]:
    """Title, a row for each rank, what found no room, and how many ranks are left out; nothing without ranks."""
    if ranks is None:
        return []
    rows = make_rows(ranks)
    shown = choose_rows(rows, view)
    columns, left_out = keep_columns(make_columns(shown, view), view.width - len("rank"))
    names, above = name_cells(shown, view.width - sum(column.width for column in columns), view)
    name_width = max(len("rank"), *(name.cell_len for name in names))
    return [
        *wrap(styled(TITLE, "title"), view.width),
        *table_lines("rank", names, name_width, columns, view, above),
        *left_out_note(left_out, view),
        *(line for text in describe_left_out(rows, shown) for line in wrap(styled(text, "quiet"), view.width)),
    ]


def name_cells(rows: Sequence[RankRow], room: int, view: View) -> tuple[list[Text], dict[int, Text]]:
    """Rank and host; where some host finds no room, the ranks alone, and the hosts above the first row of each."""
    digits = len(str(max(row.rank for row in rows)))
    hosts = [styled(view.name(row.host), "quiet") for row in rows]
    names = [join([styled(f"{row.rank:>{digits}}"), host]) for row, host in zip(rows, hosts, strict=True)]
    if all(name.cell_len <= room for name in names):
        return names, {}
    first = [index for index, row in enumerate(rows) if index == 0 or row.host != rows[index - 1].host]
    return [styled(f"{row.rank:>4}") for row in rows], {index: hosts[index] for index in first}
