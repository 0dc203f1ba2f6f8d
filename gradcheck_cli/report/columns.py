"""The columns of the layer table, and which of them a given width has room for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from gradcheck_cli.report import figures
from gradcheck_cli.report.bars import LogScale
from gradcheck_cli.report.lines import SYMBOLS, styled
from gradcheck_cli.report.rows import Row
from gradcheck_cli.report.view import View

GAP = 2
BAR_WIDTHS = (12, 24)


@dataclass(frozen=True)
class Column:
    """`title` in two lines; `rank` 0 always stays, otherwise the highest rank is left out first."""

    title: tuple[str, str]
    rank: int
    cells: tuple[Text, ...]
    right: bool = True

    @property
    def measured(self) -> bool:
        """Whether it says something that no other column does, rather than draws or describes."""
        return self.title[0] != "log scale" and self.title[1] != "type"

    @property
    def width(self) -> int:
        """In terminal cells, with the gap before it; 0 if it has nothing to show."""
        if all(cell.plain in ("", "–", "-") for cell in self.cells):
            return 0
        return GAP + max(*(cell.cell_len for cell in self.cells), *map(len, self.title))


def fit_columns(rows: Sequence[Row], room: int, view: View) -> tuple[list[Column], list[Column]]:
    """The columns that find room in so many cells, and those that do not; the bar takes what is left over."""
    narrow, wide = BAR_WIDTHS
    kept, left_out = keep_columns(make_columns(rows, narrow, view), room)
    spare = max(0, room - sum(column.width for column in kept))
    ranks = {column.rank for column in left_out}
    roomy = make_columns(rows, min(wide, narrow + spare), view)
    return [column for column in roomy if column.width and column.rank not in ranks], left_out


def keep_columns(columns: Iterable[Column], room: int) -> tuple[list[Column], list[Column]]:
    """Those with something to show that find room in so many cells, and those that do not."""
    kept, left_out = [column for column in columns if column.width], []
    while sum(column.width for column in kept) > room and any(column.rank for column in kept):
        left_out.append(max(kept, key=lambda column: column.rank))
        kept.remove(left_out[-1])
    return kept, left_out


def make_columns(rows: Sequence[Row], bar_width: int, view: View) -> list[Column]:
    """All columns in the order in which they are read."""

    def column(title: str, rank: int, cell: Callable[[Row], Text], right: bool = True) -> Column:
        upper, _, lower = title.rpartition("\n")
        return Column((upper, lower), rank, tuple(cell(row) for row in rows), right)

    def measure(title: str, rank: int, name: str, show: Callable[[float], str] = figures.scientific) -> Column:
        return column(
            title, rank, lambda row: detail(row, view.prose(show(row.values[name])) if name in row.values else "")
        )

    scale = LogScale.around(row.values["grad_rms"] for row in rows if "grad_rms" in row.values)
    return [
        column("type", 7, lambda row: styled(view.name(row.type), "quiet"), right=False),
        column("gradient\nRMS", 0, lambda row: gradient_cell(row, view)),
        column(
            f"log scale\n{scale.axis(bar_width)}", 1, lambda row: bar_cell(row, scale, bar_width, view), right=False
        ),
        measure("gradient\n/ param", 3, "grad_to_parameter"),
        measure("update\nratio", 5, "update_ratio"),
        measure("zero\n%", 6, "zero_fraction", figures.percent),
        measure("act. grad\nRMS", 2, "output_grad_rms"),
        column("status", 0, lambda row: status_cell(row, view), right=False),
        column("codes", 4, lambda row: styled(" ".join(row.codes)), right=False),
    ]


def detail(row: Row, content: str) -> Text:
    """A cell, quiet on the lines of minima and maxima."""
    return styled(content, "" if row.status else "quiet")


def gradient_cell(row: Row, view: View) -> Text:
    """The gradient's RMS; where there was a gradient whose zeros could be counted, NaN is its value, not its lack."""
    if "grad_rms" not in row.values:
        return styled("")
    value = row.values["grad_rms"]
    if math.isnan(value) and not math.isnan(row.values["zero_fraction"]):
        return styled("nan", row.status)
    return detail(row, view.prose(figures.scientific(value)))


def bar_cell(row: Row, scale: LogScale, width: int, view: View) -> Text:
    """The bar of the gradient's RMS."""
    return detail(row, scale.bar(row.values.get("grad_rms", math.nan), width, view.unicode))


def status_cell(row: Row, view: View) -> Text:
    """The status in words, with the sign of its severity."""
    sign = SYMBOLS.get(row.status, " ")
    return styled(view.prose(f"{sign} {row.status}") if row.status else "", row.status if row.status else "")
