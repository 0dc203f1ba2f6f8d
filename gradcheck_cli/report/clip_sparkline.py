"""The norms over the steps, in as many cells as there is room for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Bools, Series
from gradcheck_cli.report import figures
from gradcheck_cli.report.lines import pad, styled, wrap
from gradcheck_cli.report.view import View

LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = "_.-=+*%#"
MARGIN = len("  not finite  ")


def sparkline(series: Series, advice: ClipAdvice, view: View) -> list[Text]:
    """Highest and median norm of each cell on one log scale; under them what was not finite, and what was left out."""
    norms = series.grad_norm
    known = norms[np.isfinite(norms) & (norms > 0)]
    if not len(known):
        return []
    low, high = float(known.min()), float(known.max())
    cells = np.array_split(norms, min(len(norms), max(1, view.width - MARGIN)))
    finite = [cell[np.isfinite(cell)] for cell in cells]
    highest = [float(cell.max()) if len(cell) else np.nan for cell in finite]
    median = [float(np.median(cell)) if len(cell) else np.nan for cell in finite]
    broken = np.array([not np.isfinite(cell).all() for cell in cells])
    scale = f"log scale from {figures.norm(low)} to {figures.norm(high)}"
    title = styled(f"gradient norm over {figures.plural(len(norms), 'step')}, {scale}", "title")
    return [
        *wrap(title, view.width),
        row("highest", draw(highest, low, high, view), "info"),
        row("median", draw(median, low, high, view), "info"),
        *mark("not finite", "x", broken, "error"),
        *mark("left out", "^", left_out(series, advice, len(cells)), "quiet"),
    ]


def draw(values: Sequence[float], low: float, high: float, view: View) -> str:
    """One character a value: its height between the logs of `low` and `high`; NaN is blank."""
    levels = LEVELS if view.unicode else ASCII_LEVELS
    logs = np.log(np.clip(values, low, high))
    heights = (logs - np.log(low)) / max(np.log(high) - np.log(low), np.finfo(np.float64).tiny)
    places = np.round(heights * (len(levels) - 1))
    return "".join(" " if np.isnan(place) else levels[int(place)] for place in places)


def left_out(series: Series, advice: ClipAdvice, cells: int) -> Bools:
    """Which cells (cells,) the warm-up covers; it counts neither skipped nor non-finite steps."""
    counted = np.flatnonzero(np.isfinite(series.grad_norm) & ~series.skipped)
    cut = advice.warmup_excluded
    end = counted[min(cut, len(counted)) - 1] + 1 if cut and len(counted) else 0
    covered: Bools = np.arange(cells) * len(series) < end * cells
    return covered


def mark(label: str, sign: str, cells: Bools, style: str) -> list[Text]:
    """A line of signs below the cells (cells,) that it is about; none where there are none."""
    signs = "".join(sign if cell else " " for cell in cells)
    return [row(label, signs, style)] if cells.any() else []


def row(label: str, content: str, style: str) -> Text:
    """One line of cells behind its label."""
    return pad(styled(label, "quiet"), MARGIN - 2, right=True) + Text("  ") + styled(content, style)
