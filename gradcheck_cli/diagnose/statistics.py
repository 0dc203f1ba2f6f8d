"""Robust statistics of series: slopes, trends and spikes that one outlier can't sway."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gradcheck_cli.records import Floats

CONSISTENCY = 1.4826
"""1 / 0.6745: makes the median absolute deviation of a normal sample estimate its standard deviation."""


class Trend(NamedTuple):
    """`s`: pairs that rise minus pairs that fall, so its sign is the direction. `p`: two-sided."""

    s: int
    p: float


class Spike(NamedTuple):
    """A value at `position` above `threshold`, where the values before it have this `median`."""

    position: int
    median: float
    threshold: float


def theil_sen(y: npt.ArrayLike) -> float:
    """Slope of y (n,) per index: the median of the slopes between all pairs of finite values.

    NaN with fewer than two finite values. Takes n^2 / 2 numbers of memory: see `condense`.
    Theil 1950; Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968).
    """
    values = np.asarray(y, dtype=np.float64)
    positions = np.flatnonzero(np.isfinite(values))
    if len(positions) < 2:
        return math.nan
    values = values[positions]
    first, second = np.triu_indices(len(values), k=1)
    # Divided first, so that the difference of two large values of opposite sign can't overflow.
    distance = positions[second] - positions[first]
    return float(np.median(values[second] / distance - values[first] / distance))


def mann_kendall(y: npt.ArrayLike) -> Trend:
    """Whether y (n,) rises or falls monotonically: Mann-Kendall test, normal approximation, corrected for ties.

    Non-finite values are left out; p is 1 where there is nothing to tell (fewer than three values, all equal).
    Var(S) = (n (n-1) (2n+5) - sum over groups of t equal values of t (t-1) (2t+5)) / 18, and
    z = (S - sign S) / sqrt(Var S). Mann 1945; Kendall, "Rank Correlation Methods" (1975).
    """
    values = np.asarray(y, dtype=np.float64)
    values = values[np.isfinite(values)]
    n = len(values)
    s = sum(int((values[i + 1 :] > values[i]).sum()) - int((values[i + 1 :] < values[i]).sum()) for i in range(n))
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if n < 3 or variance <= 0:
        return Trend(s, 1.0)
    z = max(0, abs(s) - 1) / math.sqrt(variance)
    return Trend(s, math.erfc(z / math.sqrt(2)))


def robust_sigma(x: npt.ArrayLike) -> float:
    """Standard deviation of x (n,) as 1.4826 times the median absolute deviation from the median.

    Non-finite values are left out; NaN without a value. Hampel, "The influence curve and its role in robust
    estimation", JASA 69 (1974).
    """
    values = np.asarray(x, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan
    with np.errstate(over="ignore"):
        return CONSISTENCY * median(np.abs(values - median(values)))


def condense(y: npt.ArrayLike, longest: int = 500) -> Floats:
    """y (n,), all finite, as medians of at most `longest` consecutive blocks of like length; y itself if short.

    Keeps pairwise statistics cheap on long runs, and their steps less dependent on one another.
    """
    values = np.asarray(y, dtype=np.float64)
    if len(values) <= longest:
        return values
    return np.array([median(block) for block in np.array_split(values, longest)])


def find_spikes(
    values: npt.ArrayLike,
    window: int = 128,
    minimum: int = 20,
    sigmas: float = 6.0,
    least: Callable[[float], float] = lambda median: median,
    jump: float = math.inf,
    jump_from: int = 3,
) -> list[Spike]:
    """The values (n,), all finite, that stand far above those before them.

    A spike exceeds median + `sigmas` robust sigmas of the trailing `window` of values, once there are `minimum`
    of them; or, from index `jump_from` on, the largest value so far plus `jump`. Either way it also exceeds
    `least(median)`: without that, rounding is a spike in a series whose sigma is 0. Spikes enter no later window
    and no later maximum, so that one does not hide the next.
    """
    spikes: list[Spike] = []
    recent: deque[float] = deque()
    ordered: list[float] = []
    largest = -math.inf
    for index, value in enumerate(np.asarray(values, dtype=np.float64).tolist()):
        median = middle(ordered) if ordered else math.inf
        # The sigma costs as much as all the rest, and most values need none.
        if ordered and value > least(median):
            far = median + sigmas * robust_sigma(ordered) if len(ordered) >= minimum else math.inf
            threshold = max(least(median), min(far, largest + jump if index >= jump_from else math.inf))
            if value > threshold:
                spikes.append(Spike(index, median, threshold))
                continue
        largest = max(largest, value)
        recent.append(value)
        insort(ordered, value)
        if len(recent) > window:
            del ordered[bisect_left(ordered, recent.popleft())]
    return spikes


def median(x: npt.ArrayLike) -> float:
    """Median of x (n,), at least one value and no NaN; unlike numpy's, infinite without a warning beyond 1e308."""
    return middle(sorted(np.asarray(x, dtype=np.float64).tolist()))


def middle(ordered: Sequence[float]) -> float:
    """The median of sorted values, at least one of them."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
