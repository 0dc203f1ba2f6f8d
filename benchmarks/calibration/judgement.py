"""How often the promises hold, and how narrow they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.calibration.runs import Run
from gradcheck_cli.clip_advice import Interval
from gradcheck_cli.diagnose.clip.basis import choose
from gradcheck_cli.diagnose.clip.quantiles import estimate_quantile
from gradcheck_cli.diagnose.clip.warmup import cut_warmup
from gradcheck_cli.records import Floats

LENGTHS = (200, 300, 500)
STARTS = (0, 100, 350, 600, 900)
ALPHA = 0.05
Method = Callable[[Floats, float, int], Interval]


@dataclass(frozen=True)
class Window:
    """The `kept` norms of a stretch of a run, the value that would be recommended, and its `rate` on what followed."""

    model: str
    kept: Floats
    max_norm: float
    horizon: int
    rate: float


@dataclass(frozen=True)
class Score:
    """Share of windows in which the promise held, median width and mean interval score, these two in percentage points.

    The score is the width plus 2 / ALPHA times what is missed: Gneiting and Raftery, "Strictly proper scoring rules,
    prediction, and estimation", JASA 102 (2007), section 6.2; Winkler 1972.
    """

    windows: int
    coverage: float
    width: float
    score: float


def cut_windows(runs: tuple[Run, ...], norms: Mapping[str, Floats], horizon: int) -> Iterator[Window | None]:
    """Every stretch of every run that is finite and has `horizon` steps after it; None where no value can be had."""
    for run in runs:
        series = norms[run.name]
        for length in LENGTHS:
            for start in STARTS:
                stretch, later = series[start : start + length], series[start + length : start + length + horizon]
                if len(later) == horizon and np.isfinite(stretch).all() and np.isfinite(later).all():
                    yield cut_window(run.model, stretch, later)


def cut_window(model: str, stretch: Floats, later: Floats) -> Window | None:
    """One window; the value is p95, or p90 where there are too few steps for it."""
    kept = stretch[cut_warmup(stretch) :]
    choice = choose([estimate_quantile(kept, percentile) for percentile in (90.0, 95.0)], 95.0)
    if choice is None:
        return None
    return Window(model, kept, choice.value, len(later), float((later > choice.value).mean()))


def score(windows: list[Window], method: Method) -> Score:
    """Judge a method on windows."""
    ends = np.array([method(window.kept, window.max_norm, window.horizon) for window in windows])
    rates, low, high = np.array([window.rate for window in windows]), ends[:, 0], ends[:, 1]
    missed = np.maximum(0, low - rates) + np.maximum(0, rates - high)
    width = high - low
    points = 100 * float((width + 2 / ALPHA * missed).mean())
    return Score(len(windows), float((missed <= 1e-12).mean()), 100 * float(np.median(width)), points)
