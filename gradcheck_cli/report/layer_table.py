"""The table of layers: one row a layer or group of layers, as many columns as the width has room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.text import Text

from gradcheck_cli.records import LayerSummary
from gradcheck_cli.report import figures
from gradcheck_cli.report.columns import GAP, Column, fit_columns
from gradcheck_cli.report.lines import join, pad, styled, wrap
from gradcheck_cli.report.rows import Row, make_rows
from gradcheck_cli.report.view import View

MANY_LAYERS = 12
EXTREMES = 5


def layer_table(layers: Sequence[LayerSummary], view: View) -> list[Text]:
    """Titles, rows, and which columns found no room; a name wider than half the view has a line to itself."""
    rows = make_rows(layers, view)
    if not rows:
        return [styled("no layer was recorded")]
    names = [name_cell(row, view) for row in rows]
    name_width = max([len("layer"), *(name.cell_len for name in names if name.cell_len <= view.width // 2)])
    columns, left_out = fit_columns(rows, view.width - name_width, view)
    return [*table_lines("layer", names, name_width, columns, view, {}), *left_out_note(left_out, view)]


def table_lines(
    title: str,
    names: Sequence[Text],
    name_width: int,
    columns: Sequence[Column],
    view: View,
    above: Mapping[int, Text],
) -> list[Text]:
    """Titles and rows, with what stands above some of them; a name wider than its column has a line to itself."""
    lines = [
        table_line(
            styled(name, "quiet"), [styled(column.title[line], "quiet") for column in columns], columns, name_width
        )
        for line, name in enumerate(("", title))
    ]
    for index, name in enumerate(names):
        lines += wrap(above[index], view.width) if index in above else []
        if name.cell_len > name_width:
            lines += wrap(name, view.width)
            name = styled("")
        lines.append(table_line(name, [column.cells[index] for column in columns], columns, name_width))
    return lines


def table_line(name: Text, cells: Sequence[Text], columns: Sequence[Column], name_width: int) -> Text:
    """One line of the table."""
    line = pad(name, name_width)
    for cell, column in zip(cells, columns, strict=True):
        line += Text(" " * GAP) + pad(cell, column.width - GAP, column.right)
    return line


def name_cell(row: Row, view: View) -> Text:
    """The name and how many layers it stands for."""
    if not row.status:
        return styled(f"  {row.name}", "quiet")
    name = styled(view.name(row.name) or "(model)", row.status if row.status in ("warning", "error") else "")
    return join([name, styled(view.prose(f"×{row.count}"), "quiet")], " ") if row.count > 1 else name


def left_out_note(columns: Iterable[Column], view: View) -> list[Text]:
    """Say what the width had no room for."""
    titles = [" ".join(filter(None, column.title)) for column in columns if column.measured]
    if not titles:
        return []
    return wrap(styled(f"no room at {view.width} columns for: {', '.join(reversed(titles))}", "quiet"), view.width)


def extremes(layers: Sequence[LayerSummary], view: View) -> list[Text]:
    """The layers with the largest and the smallest gradient RMS, where there are too many to see at a glance."""
    folded = len(make_rows(layers, view)) < len(layers)
    known = sorted((layer for layer in layers if not math.isnan(layer.grad_rms)), key=lambda layer: -layer.grad_rms)
    number = min(EXTREMES, len(known) // 2)
    if number == 0 or not (folded or len(layers) > MANY_LAYERS):
        return []
    largest = ranking("largest gradients (RMS)", known[:number], view)
    smallest = ranking("smallest gradients (RMS)", known[: -number - 1 : -1], view)
    left = max(line.cell_len for line in largest) + 2
    if left + max(line.cell_len for line in smallest) <= view.width:
        return [pad(one, left) + other for one, other in zip(largest, smallest, strict=True)]
    return [line for line in [*largest, *smallest] for line in wrap(line, view.width, " " * 11, "")]


def ranking(title: str, layers: Sequence[LayerSummary], view: View) -> list[Text]:
    """The number first, so that a long name has room."""
    rows = [
        join([styled(figures.scientific(layer.grad_rms).rjust(9)), styled(view.name(layer.name) or "(model)")])
        for layer in layers
    ]
    return [styled(title, "quiet"), *rows]
