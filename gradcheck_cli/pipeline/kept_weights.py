"""Copies of the weights from before the updates that unusual losses lead to."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from math import inf, isfinite

import torch
from torch import Tensor, nn

from gradcheck_cli.diagnose.statistics import middle, robust_sigma

WINDOW = 128
EARLIER_LOSSES = 5
SIGMAS = 4.0
LEAST_SIGMA = 0.05
MOST_COPIES = 3


class KeptWeights:
    """Copies a model's weights and buffers when a loss stands far above those before it, until `settle` lets go.

    It has to be SIGMAS above the median of up to WINDOW losses before it, in robust sigmas of at least LEAST_SIGMA of
    that median. The norm of the gradient would tell better, but is known a few steps later only.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []
        self._copies: dict[int, list[Tensor]] = {}

    def look(self, step: int, loss: float) -> None:
        """Take note of a loss, while the weights are still those that made it."""
        if not isfinite(loss):
            return
        highest = self._highest(loss)
        if loss > highest and step not in self._copies:
            self._copies[step] = [tensor.detach().clone() for tensor in self._state()]
            if len(self._copies) > MOST_COPIES:  # of the last steps; the first is the worst so far
                del self._copies[list(self._copies)[1]]
        self._remember(min(loss, highest))  # so that one spike does not hide the next

    def settle(self, step: int, is_worst: bool) -> None:
        """Given what became of a step, keep its weights and no earlier ones, or let go of them."""
        if is_worst:
            self._copies = {number: copies for number, copies in self._copies.items() if number >= step}
        else:
            self._copies.pop(step, None)

    @torch.no_grad()
    def put_back(self, step: int) -> bool:
        """Give the model the weights that it had in a step, if they were kept; else leave it as it is."""
        state, copies = list(self._state()), self._copies.get(step, [])
        if [tensor.shape for tensor in state] != [copy.shape for copy in copies]:
            return False
        for tensor, copy in zip(state, copies, strict=True):
            tensor.copy_(copy)
        return True

    def _state(self) -> Iterator[Tensor]:
        yield from (parameter.detach() for parameter in self._model.parameters())
        yield from self._model.buffers()

    def _highest(self, loss: float) -> float:
        """The highest loss that is not unusual; infinite where the loss is clearly lower, or there are too few."""
        count = len(self._ordered)
        if count < EARLIER_LOSSES or loss <= self._ordered[-1 - count // 10]:
            return inf
        median = middle(self._ordered)
        return median + SIGMAS * max(robust_sigma(self._ordered), LEAST_SIGMA * abs(median))

    def _remember(self, loss: float) -> None:
        self._recent.append(loss)
        insort(self._ordered, loss)
        if len(self._recent) > WINDOW:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]
