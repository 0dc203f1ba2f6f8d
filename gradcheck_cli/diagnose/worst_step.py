"""The step whose gradient stands furthest above those before it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from gradcheck_cli.diagnose.statistics import middle

WINDOW = 128
EARLIER_STEPS = 5
LEAST_RATIO = 5.0


@dataclass(frozen=True)
class WorstStep:
    """A step with its gradient norm, the median of the norms shortly before it, and the largest of all before it."""

    step: int
    norm: float
    median: float
    largest: float

    @property
    def ratio(self) -> float:
        """How many times the median."""
        return self.norm / self.median


class WorstStepSearch:
    """Takes norms step by step, while a run is on or after it; `worst` is what was found so far.

    A step counts if its norm is LEAST_RATIO times the median of up to WINDOW norms before it, of which there must be
    EARLIER_STEPS. Norms that are not finite, or 0, are passed over. Unlike a spike, it need not stand out from their
    spread: a few samples may dominate the gradient of a step in a series that was wild before.
    """

    def __init__(self) -> None:
        self.worst: WorstStep | None = None
        self._largest = 0.0
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, step: int, norm: float) -> bool:
        """Whether the step is the worst so far."""
        if not isfinite(norm) or norm <= 0:
            return False
        found = None
        if len(self._ordered) >= EARLIER_STEPS:
            found = WorstStep(step, norm, middle(self._ordered), self._largest)
        self._remember(norm)
        if found is None or found.ratio < max(LEAST_RATIO, self.worst.ratio if self.worst else 0.0):
            return False
        self.worst = found
        return True

    def _remember(self, norm: float) -> None:
        self._largest = max(self._largest, norm)
        self._recent.append(norm)
        insort(self._ordered, norm)
        if len(self._recent) > WINDOW:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]


def find_worst_step(norms: Iterable[float]) -> WorstStep | None:
    """The worst step of a run, if there is one."""
    search = WorstStepSearch()
    for step, norm in enumerate(norms):
        search.add(step, norm)
    return search.worst
