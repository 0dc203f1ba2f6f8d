"""Compare two ways of doing the same thing on a machine whose speed drifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

HELD_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 32), "MALLOC_MMAP_THRESHOLD_": str(1 << 32)}
"""Settings of glibc's allocator: it then gives no memory back to the system, which `__main__.hold_memory` explains."""


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
    return compare_all(baseline, {"": measured}, rounds)[""]


def compare_all(
    baseline: Callable[[], object], measured: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, Comparison]:
    """The same for several things, each against one baseline."""
    runs = [baseline, *measured.values()]
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds):
        order = range(len(runs))
        for which in order if number % 2 == 0 else reversed(order):
            began = perf_counter()
            runs[which]()
            seconds[which].append(perf_counter() - began)
    return {name: Comparison(seconds[0], one) for name, one in zip(measured, seconds[1:], strict=True)}
