"""Axes: from values to places, and the ticks at which both meet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gradcheck_cli.records import Floats

MARGIN = 0.06
FEWEST_DECADES = 1.0
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
WITHIN_DECADE = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`; where it is `log`, both are decimal logarithms."""

    low: float
    high: float
    log: bool

    def place(self, values: Floats) -> Floats:
        """Shares of the axis, 0 at its low end, of the shape of `values`; NaN for what has no place on it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            on_axis = np.log10(values) if self.log else np.asarray(values, dtype=np.float64)
            shares = (on_axis - self.low) / (self.high - self.low)
        return np.where(np.isfinite(shares), shares, np.nan)

    def place_one(self, value: float) -> float:
        """As `place`, of one value."""
        return float(self.place(np.array([value]))[0])

    def ticks(self, most: int) -> list[tuple[str, float]]:
        """Label and share of about `most` round values, from the low end on."""
        values = log_ticks(self.low, self.high, most) if self.log else round_values(self.low, self.high, most)
        powers = self.log and not all(1e-3 <= value <= 1e4 for value in values)
        return [(f"{value:.0e}" if powers else f"{value:g}", self.place_one(value)) for value in values]


def fit_scale(values: Iterable[float], log: bool, decades: float = FEWEST_DECADES) -> Scale:
    """The scale that shows every finite value, positive ones if it is `log`, with a margin at both ends."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    on_axis = [math.log10(value) for value in known] if log else known
    low, high = (min(on_axis), max(on_axis)) if on_axis else (0.0, 1.0)
    least = decades if log else max(abs(low), abs(high)) * 1e-3 or 1.0
    missing = max(0.0, least - (high - low)) / 2
    margin = MARGIN * max(high - low, least)
    return Scale(low - missing - margin, high + missing + margin, log)


def alike(scales: Sequence[Scale]) -> list[Scale]:
    """The same scales, each with as many decades as the longest of them, so that slopes can be compared."""
    longest = max(scale.high - scale.low for scale in scales)
    missing = [(longest - (scale.high - scale.low)) / 2 for scale in scales]
    return [Scale(scale.low - more, scale.high + more, True) for scale, more in zip(scales, missing, strict=True)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, every so many; where there are fewer than three, finer ones."""
    decades = range(math.ceil(low), math.floor(high) + 1)
    if len(decades) >= 3:
        every = math.ceil(len(decades) / most)
        return [10.0**decade for decade in decades if decade % every == 0]
    finer = [factor * 10.0**decade for decade in range(math.floor(low), math.ceil(high)) for factor in WITHIN_DECADE]
    inside = [value for value in finer if low <= math.log10(value) <= high]
    return inside if len(inside) > 1 else round_values(10**low, 10**high, most)


def round_values(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in STEPS if factor * power >= rough * 0.999)
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def whole_ticks(first: int, last: int, most: int) -> list[int]:
    """Round whole numbers from `first` to `last`, for an axis of steps."""
    if last <= first:
        return [first]
    step = max(1, math.ceil(round_values(0.0, float(last - first), most)[1]))
    return list(range(math.ceil(first / step) * step, last + 1, step))
