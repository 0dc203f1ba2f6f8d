"""The table of layers in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradcheck_cli.records import Report
from gradcheck_cli.report.columns import Column, make_columns
from gradcheck_cli.report.figures import plural
from gradcheck_cli.report.layer_table import MANY_LAYERS
from gradcheck_cli.report.lines import SYMBOLS
from gradcheck_cli.report.markup import code, prose, row, sign, table_head
from gradcheck_cli.report.parts import Part
from gradcheck_cli.report.rows import Row, make_rows
from gradcheck_cli.report.view import View


def layer_parts(report: Report, view: View) -> Iterator[Part]:
    """A row for each layer, or for those that are alike, in execution order; folded away where there are many."""
    rows = make_rows(report.layers, view)
    if not rows:
        return
    columns = [column for column in make_columns(rows, 1, view) if column.width and column.title[0] != "log scale"]
    titles = ["layer", *(" ".join(filter(None, column.title)) for column in columns)]
    head = table_head(titles, [False, *(column.right for column in columns)])
    items = tuple(row(cells(one, index, columns, view)) for index, one in enumerate(rows))
    count = plural(len(report.layers), "layer")
    if len(rows) > MANY_LAYERS:
        yield Part(f"<details><summary>{count}</summary>\n\n{head}", items, "\n</details>\n\n", "row")
    else:
        yield Part(f"### {count}\n\n{head}", items, "\n", "row")


def cells(one: Row, index: int, columns: Sequence[Column], view: View) -> Iterator[str]:
    """One row; a line of minima or maxima is set apart from the layers."""
    if not one.status:
        yield f"*{one.name}*"
    else:
        yield code(one.name or "(model)", view) + (f" ×{one.count}" if one.count > 1 else "")
    for column in columns:
        content = prose(column.cells[index].plain.strip(), view)
        symbol = SYMBOLS.get(one.status, "")
        yield content.replace(symbol, sign(symbol)) if column.title[1] == "status" and symbol else content
