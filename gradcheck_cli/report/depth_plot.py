"""The depth plot: how the activations and their gradients grow or shrink from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from gradcheck_cli.records import LayerSummary
from gradcheck_cli.report import figures
from gradcheck_cli.report.bars import LogScale
from gradcheck_cli.report.lines import join, pad, styled, wrap
from gradcheck_cli.report.view import View

WIDE_ENOUGH = 110
FEWEST_LAYERS = 4
MOST_LINES = 60
BAR_WIDTHS = (14, 32)
GAP = 2


def depth_plot(layers: Sequence[LayerSummary], view: View) -> list[Text]:
    """Two bars for each probed layer, in execution order: RMS of its output, and of the loss gradient there.

    Both scales have as many decades in a cell, so that their slopes compare. Nothing where the plot is not wanted.
    """
    probed = [layer for layer in layers if not (math.isnan(layer.output_rms) and math.isnan(layer.output_grad_rms))]
    if not is_wanted(len(probed), view):
        return []
    every = 1 if view.all_layers else math.ceil(len(probed) / MOST_LINES)
    shown = probed[::every]
    names = [styled(view.name(layer.name) or "(model)", status_style(layer)) for layer in shown]
    name_width = max([len("layer"), *(name.cell_len for name in names if name.cell_len <= view.width // 3)])
    columns = [[layer.output_rms for layer in shown], [layer.output_grad_rms for layer in shown]]
    narrow, wide = BAR_WIDTHS
    width = min(wide, max(narrow, (view.width - name_width) // 2 - GAP))
    scales = like_scales(columns)
    lines = titles(scales, name_width, width, every, len(probed), view)
    for name, *values in zip(names, *columns, strict=True):
        if name.cell_len > name_width:
            lines += wrap(name, view.width)
            name = styled("")
        bars = [pad(bar(value, scale, width, view), width) for value, scale in zip(values, scales, strict=True)]
        lines.append(join([pad(name, name_width), *bars], " " * GAP))
    return lines


def is_wanted(layers: int, view: View) -> bool:
    """Whether to draw so many probed layers: what the view says, or else where there is room and a slope to see."""
    if view.depth_plot is None:
        return view.width >= WIDE_ENOUGH and layers >= FEWEST_LAYERS
    return view.depth_plot and layers > 0


def like_scales(columns: Sequence[Sequence[float]]) -> list[LogScale]:
    """One scale a column, all of the same number of decades."""
    scales = [LogScale.around(column) for column in columns]
    decades = max(scale.high - scale.low for scale in scales)
    return [LogScale(scale.high - decades, scale.high) for scale in scales]


def titles(scales: Sequence[LogScale], name_width: int, width: int, every: int, layers: int, view: View) -> list[Text]:
    """What is drawn, and the ends of both scales."""
    upper = ["", "activation RMS", "act. grad RMS"]
    lower = ["layer", *(scale.axis(width) for scale in scales)]
    widths = [name_width, width, width]
    lines = [
        styled((" " * GAP).join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)), "quiet")
        for cells in (upper, lower)
    ]
    note = f"depth plot: every {figures.ordinal(every)} of {layers:,} layers" if every > 1 else ""
    return [*(wrap(styled(view.prose(note), "quiet"), view.width) if note else []), *lines]


def bar(value: float, scale: LogScale, width: int, view: View) -> Text:
    """The bar; in its place 0, inf, or nothing."""
    if value == 0 or math.isinf(value):
        return styled(f"{value:g}")
    return styled(scale.bar(value, width, view.unicode))


def status_style(layer: LayerSummary) -> str:
    """As in the table of layers."""
    return layer.status if layer.status in ("warning", "error") else ""
