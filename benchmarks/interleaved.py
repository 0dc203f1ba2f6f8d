"""Compare two ways of doing the same thing on a machine whose speed drifts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Comparison:
    """Seconds of each round; the two alternate, so that a slow moment hits both."""

    baseline: list[float]
    measured: list[float]

    @property
    def ratio(self) -> float:
        """The median over the rounds of measured / baseline."""
        return median(b / a for a, b in zip(self.baseline, self.measured, strict=True))

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of that ratio."""
        ratios = sorted(b / a for a, b in zip(self.baseline, self.measured, strict=True))
        return ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]


def compare(baseline: Callable[[], object], measured: Callable[[], object], rounds: int) -> Comparison:
    """Run both once to warm up, then `rounds` times in turn, the first one alternating."""
    baseline(), measured()
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            began = perf_counter()
            (baseline, measured)[which]()
            seconds[which].append(perf_counter() - began)
    return Comparison(*seconds)
