"""Small tensors side by side in one buffer, some steps under one another, so that one pass reduces them all.

A step of a small model takes as long as a hundred calls of NumPy: a call must serve many tensors and many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.moments import Moments, norms_of, statistics_of
from gradcheck_cli.records import Floats

ELEMENTS = 1 << 18  # what a pack may hold: at most 4 MiB of float64 twice, and mostly within the cache
STEPS = 16


class Pack:
    """Room for STEPS steps (fewer, if the tensors are large) of the tensors at `indices`."""

    def __init__(self, indices: Sequence[int], tensors: Sequence[Tensor], norms_only: bool) -> None:
        self.indices = list(indices)
        self._norms_only = norms_only
        sizes = [tensors[i].numel() for i in indices]
        ends = np.cumsum(sizes)
        self._starts = ends - sizes
        self._bounds = list(zip(self._starts.tolist(), ends.tolist(), strict=True))
        self._counts = np.array(sizes, dtype=np.float64)
        self._capacity = max(1, min(STEPS, ELEMENTS // sum(sizes)))
        double = any(tensors[i].dtype is torch.float64 for i in indices)
        self._rows = torch.zeros(self._capacity, sum(sizes), dtype=torch.float64 if double else torch.float32)
        self._wide, self._squares = np.zeros((2, *self._rows.shape))
        self._views = [
            [row[i:j].view(tensors[k].shape) for (i, j), k in zip(self._bounds, indices, strict=True)]
            for row in self._rows
        ]
        self._waiting: list[Floats] = []

    def put(self, tensors: Sequence[Tensor], out: Floats) -> None:
        """Copy a step's tensors in; their results will be written to `out[indices]`, at `settle` at the latest."""
        torch._foreach_copy_(self._views[len(self._waiting)], [tensors[i] for i in self.indices])
        self._waiting.append(out)
        if len(self._waiting) == self._capacity:
            self.settle()

    def settle(self) -> None:
        """Reduce all steps that wait."""
        steps = len(self._waiting)
        if not steps:
            return
        with np.errstate(all="ignore"):
            np.copyto(self._wide[:steps], self._rows[:steps].numpy())
            np.multiply(self._wide[:steps], self._wide[:steps], out=self._squares[:steps])
            results = self._norms(steps) if self._norms_only else self._statistics(steps)
        for out, result in zip(self._waiting, results, strict=True):
            out[self.indices] = result
        self._waiting = []

    def _norms(self, steps: int) -> Floats:
        return norms_of(self._each(np.add, self._squares[:steps]), self._values)

    def _statistics(self, steps: int) -> Floats:
        moments = Moments(
            count=self._counts,
            total=self._each(np.add, self._wide[:steps]),
            squares=self._each(np.add, self._squares[:steps]),
            largest=np.sqrt(self._each(np.maximum, self._squares[:steps])),
            zeros=self._count_zeros(steps),
        )
        return statistics_of(moments, self._values)

    def _each(self, reduction: np.ufunc, values: Floats) -> Floats:
        """Reduce values (steps, elements) to (steps, tensors)."""
        steps, width = values.shape
        starts = (np.arange(steps)[:, None] * width + self._starts).ravel()
        return cast(Floats, reduction.reduceat(values.ravel(), starts).reshape(steps, -1))

    def _count_zeros(self, steps: int) -> Floats:
        zeros = np.zeros((steps, len(self.indices)))
        for step, is_zero in enumerate(self._wide[:steps] == 0):
            if np.count_nonzero(is_zero):
                zeros[step] = [np.count_nonzero(is_zero[i:j]) for i, j in self._bounds]
        return zeros

    def _values(self, step: int, tensor: int) -> Tensor:
        return cast(Tensor, self._views[step][tensor])


def split_by_size(indices: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Runs of indices whose sizes together are at most ELEMENTS."""
    runs: list[list[int]] = []
    used = ELEMENTS
    for index in indices:
        if used + sizes[index] > ELEMENTS:
            runs.append([])
            used = 0
        runs[-1].append(index)
        used += sizes[index]
    return runs
