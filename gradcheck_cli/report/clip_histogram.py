"""How often each size of norm came, on a log scale, and where the candidates lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Floats, Ints
from gradcheck_cli.report import figures
from gradcheck_cli.report.bars import draw_bar
from gradcheck_cli.report.lines import join, pad, styled, wrap
from gradcheck_cli.report.view import View

BINS = 12
LEAST_WIDTH = float(np.log(1.01))
BAR_WIDTH = 32
Row = tuple[str, int, list[str]]


def histogram(advice: ClipAdvice, view: View) -> list[Text]:
    """A bar for each bin, small norms first, with the thresholds that fall into it."""
    norms = advice.norms
    if not len(norms):
        return []
    zeros, logs = int((norms == 0).sum()), np.log(norms[norms > 0])
    edges = bin_edges(logs)
    places = place_thresholds(thresholds(advice), edges)
    rows: list[Row] = [("0", zeros, [])] if zeros else []
    for index, number in enumerate(count_bins(logs, edges).tolist()):
        low, high = np.exp(edges[index : index + 2])
        rows.append((f"{figures.norm(low)} to {figures.norm(high)}", number, places[index + 1]))
    title = f"gradient norms of {figures.plural(len(norms), 'step')}, log scale"
    return [
        *wrap(styled(title, "title"), view.width),
        *draw_rows(rows, view),
        *outside("below all of them", places[0], view),
        *outside("above all of them", places[-1], view),
    ]


def bin_edges(logs: Floats) -> Floats:
    """Edges (bins + 1,) of up to BINS equal bins from the least to the largest log norm, none narrower than 1 %."""
    if not len(logs):
        return np.zeros(0)
    bins = int(min(BINS, np.sqrt(len(logs)), np.ptp(logs) / LEAST_WIDTH))
    return np.linspace(logs.min(), logs.max(), max(1, bins) + 1)


def count_bins(logs: Floats, edges: Floats) -> Ints:
    """How many fall into each bin (bins,); an inner edge belongs to the bin above it."""
    return np.bincount(np.searchsorted(edges[1:-1], logs, side="right"), minlength=max(0, len(edges) - 1))


def thresholds(advice: ClipAdvice) -> dict[str, float]:
    """The values that do not change from step to step, by name; the recommended one first."""
    named = {"max_norm": advice.max_norm} | {one.name: one.max_norm for one in advice.candidates}
    if advice.judged is not None and advice.judged.max_norm not in named.values():
        named["yours"] = advice.judged.max_norm
    return {name: value for name, value in named.items() if value is not None}


def place_thresholds(named: Mapping[str, float], edges: Floats) -> list[list[str]]:
    """Names (bins + 2): below the first edge, in each bin, above the last edge."""
    if not len(edges):  # every norm is 0
        return [[], list(named)]
    places: list[list[str]] = [[] for _ in range(len(edges) + 1)]
    for name, value in named.items():
        log = np.log(value) if value > 0 else -np.inf
        inner = edges if log > edges[-1] else edges[:-1]  # the last edge belongs to the last bin
        places[int(np.searchsorted(inner, log, side="right"))].append(name)
    return places


def draw_rows(rows: Sequence[Row], view: View) -> list[Text]:
    """Range, bar, number, thresholds; these go on below each other where they find no room."""
    label_width = max(len(label) for label, _, _ in rows)
    number_width = max(len(f"{number:,}") for _, number, _ in rows)
    most = max(number for _, number, _ in rows)
    width = max(8, min(BAR_WIDTH, view.width // 3))
    lines: list[Text] = []
    for label, number, names in rows:
        bar = draw_bar(number / most, width, view.unicode) if number else ""
        cells = [
            pad(styled(label, "quiet"), label_width, right=True),
            pad(styled(f"{number:,}"), number_width, right=True),
        ]
        row = join([*cells, pad(styled(bar, "info"), width)])
        if names:
            mark = styled(view.prose(f"  ← {', '.join(names)}"), "title")
            first, *rest = wrap(mark, view.width - row.cell_len, "    ", "")
            lines += [row + first, *(Text(" " * row.cell_len) + line for line in rest)]
        else:
            lines.append(row)
    return lines


def outside(where: str, names: Sequence[str], view: View) -> list[Text]:
    """Thresholds beyond either end."""
    return wrap(styled(view.prose(f"{where}: {', '.join(names)}"), "quiet"), view.width, "    ", "  ") if names else []
