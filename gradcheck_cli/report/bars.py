"""Bars, and the logarithmic scale that those of all layers share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

EIGHTHS = "▏▎▍▌▋▊▉█"


def draw_bar(share: float, width: int, unicode: bool) -> str:
    """A bar of `share` of `width` cells, an eighth of a cell at least."""
    eighths = min(8 * width, max(1, round(share * 8 * width)))
    if not unicode:
        return "#" * max(1, round(eighths / 8))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest - 1] if rest else "")


@dataclass(frozen=True)
class LogScale:
    """From 10^low to 10^high, whole decades."""

    low: int
    high: int

    @staticmethod
    def around(values: Iterable[float]) -> LogScale:
        """The decades that hold every positive finite value, at least four, so that small differences look small."""
        logs = [math.log10(value) for value in values if 0 < value < math.inf] or [0.0]
        low, high = math.floor(min(logs)), math.ceil(max(logs))
        missing = max(0, 4 - (high - low))
        return LogScale(low - missing // 2 - missing % 2, high + missing // 2)

    def axis(self, width: int) -> str:
        """The scale's two ends, over the ends of the bars."""
        low, high = f"1e{self.low:+03d}", f"1e{self.high:+03d}"
        return low + high.rjust(width - len(low))

    def bar(self, value: float, width: int, unicode: bool) -> str:
        """A bar of up to `width` cells; the smallest value still shows, zero and NaN do not."""
        if not value > 0:
            return ""
        share = 1.0 if math.isinf(value) else (math.log10(value) - self.low) / (self.high - self.low)
        return draw_bar(share, width, unicode)
