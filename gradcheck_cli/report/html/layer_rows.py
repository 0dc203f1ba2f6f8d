"""The table of layers, in blocks that can be folded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from gradcheck_cli.records import LayerSummary
from gradcheck_cli.report import figures
from gradcheck_cli.report.bars import LogScale
from gradcheck_cli.report.html.words import show_layer
from gradcheck_cli.report.lines import SYMBOLS
from gradcheck_cli.report.rows import FOLD_ABOVE, STATUSES, make_rows
from gradcheck_cli.report.view import View

MOST_LAYERS = 1500
NUMBERED = re.compile(r"^(?:[^.]+\.)*?\d+(?=\.|$)")
MEASURES = (
    ("gradient RMS", "grad_rms"),
    ("gradient / param", "grad_to_parameter"),
    ("update ratio", "update_ratio"),
    ("zero %", "zero_fraction"),
    ("activation RMS", "output_rms"),
    ("act. grad RMS", "output_grad_rms"),
)
TITLES = tuple(title for title, _ in MEASURES)


@dataclass(frozen=True)
class Cell:
    """What is shown, and what is sorted by; "" for nothing, which comes last."""

    text: str
    value: str


@dataclass(frozen=True)
class LayerRow:
    """A layer, or `count` of them that are alike; `bar` is the length of its bar in percent."""

    order: int
    name: str
    type: str
    numel: Cell
    cells: Sequence[Cell]
    bar: float
    status: str
    sign: str
    codes: Sequence[str]
    count: int = 1


@dataclass(frozen=True)
class LayerBlock:
    """Neighbours that share the beginning of their names, "" for none; `span` tells of their gradients."""

    name: str
    rows: Sequence[LayerRow]
    folded: bool
    status: str = ""
    sign: str = ""
    span: str = ""


@dataclass(frozen=True)
class LayerTable:
    """`statuses` with how many layers have each, the worst first."""

    blocks: Sequence[LayerBlock]
    statuses: Sequence[tuple[str, str, int]]
    note: str = ""


def make_table(layers: Sequence[LayerSummary], view: View) -> LayerTable | None:
    """None without layers. Of very many, those that are alike are joined into one, which the note says."""
    if not layers:
        return None
    scale = LogScale.around(layer.grad_rms for layer in layers)
    note = ""
    if len(layers) > MOST_LAYERS:
        rows = joined_rows(layers, scale)
        note = f"{len(layers):,} layers; those that are alike share a row of medians"
        blocks = [LayerBlock("", rows, False)]
    else:
        rows = [make_row(order, layer, scale) for order, layer in enumerate(layers, 1)]
        blocks = make_blocks(rows, fold=len(layers) > FOLD_ABOVE and not view.all_layers)
    found = [(status, sign_of(status), sum(row.count for row in rows if row.status == status)) for status in STATUSES]
    return LayerTable(blocks, [one for one in reversed(found) if one[2]], note)


def make_row(order: int, layer: LayerSummary, scale: LogScale) -> LayerRow:
    """Of one layer."""
    values = [getattr(layer, name) for _, name in MEASURES]
    return LayerRow(
        order,
        show_layer(layer.name),
        layer.type,
        Cell(figures.count(layer.numel), str(layer.numel)),
        [make_cell(title, value) for title, value in zip(TITLES, values, strict=True)],
        bar_length(layer.grad_rms, scale),
        layer.status,
        sign_of(layer.status),
        layer.codes,
    )


def joined_rows(layers: Sequence[LayerSummary], scale: LogScale) -> list[LayerRow]:
    """Of layers that differ in their numbers only, as in the terminal."""
    rows = [row for row in make_rows(layers, View()) if row.status]
    return [
        LayerRow(
            order,
            show_layer(row.name),
            row.type,
            Cell("–", ""),
            [make_cell(title, row.values.get(name, math.nan)) for title, name in MEASURES],
            bar_length(row.values["grad_rms"], scale),
            row.status,
            sign_of(row.status),
            row.codes,
            row.count,
        )
        for order, row in enumerate(rows, 1)
    ]


def make_cell(title: str, value: float) -> Cell:
    """Percents where the title says so."""
    text = figures.percent(value) if title.endswith("%") else figures.scientific(value)
    return Cell(text, "" if math.isnan(value) else repr(value))


def bar_length(value: float, scale: LogScale) -> float:
    """Percent of the longest."""
    if not 0 < value < math.inf:
        return 0.0
    return round(100 * max(0.02, (math.log10(value) - scale.low) / (scale.high - scale.low)), 1)


def sign_of(status: str) -> str:
    """The sign of a severity, a tick for ok."""
    return "✓" if status == "ok" else SYMBOLS.get(status, "–")


def make_blocks(rows: Sequence[LayerRow], fold: bool) -> list[LayerBlock]:
    """In the order of execution; blocks in which something is wrong are not folded."""
    blocks = []
    for name, group in groupby(rows, key=lambda row: block_of(row.name)):
        members = list(group)
        if not name or len(members) < 2:
            blocks.append(LayerBlock("", members, False))
            continue
        worst = max((row.status for row in members), key=STATUSES.index)
        sick = worst in ("warning", "error")
        blocks.append(LayerBlock(name, members, fold and not sick, worst, sign_of(worst), describe(members)))
    return blocks


def block_of(name: str) -> str:
    """`transformer.h.7` of `transformer.h.7.mlp.c_fc`; without a number what stands before the last dot."""
    found = NUMBERED.match(name)
    if found and found[0] != name:
        return found[0]
    return "" if found else name.rpartition(".")[0]


def describe(rows: Sequence[LayerRow]) -> str:
    """How many layers, and from where to where their gradients go."""
    values = [float(row.cells[0].value) for row in rows if row.cells[0].value]
    span = f", gradient RMS {min(values):.1e} to {max(values):.1e}" if values else ""
    return f"{figures.plural(len(rows), 'layer')}{span}"
