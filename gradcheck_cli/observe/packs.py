"""Small tensors side by side in one buffer, so that one pass reduces them all.

A step of a small model takes as long as a hundred calls of NumPy. So a step only copies its tensors into a ring; a
few steps later they are reduced together, one after the other in a float64 buffer that stays in the cache, by code
that does too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.moments import Moments, norms_of, statistics_of
from gradcheck_cli.records import Floats

ELEMENTS = 1 << 17
RING = 1 << 20
STEPS = 16


class Bench:
    """Room to work for all packs of a reducer: values of one step and their squares, in float64."""

    def __init__(self) -> None:
        self.values, self.squares = np.zeros((2, ELEMENTS))


@dataclass
class Pending:
    """Results that are complete once the packs that owe them are settled."""

    results: Floats
    packs: Sequence[Pack]

    def settle(self) -> Floats:
        """The results; reduces all steps that wait, this one and others."""
        for pack in self.packs:
            pack.settle()
        return self.results


class Pack:
    """A ring for up to STEPS steps of the tensors at `indices`, at most ELEMENTS elements in each."""

    def __init__(self, indices: Sequence[int], tensors: Sequence[Tensor], norms_only: bool, bench: Bench) -> None:
        sizes = [tensors[i].numel() for i in indices]
        ends = np.cumsum(sizes)
        width = sum(sizes)
        wide = any(tensors[i].dtype is torch.float64 for i in indices)
        self._indices, self._norms_only = list(indices), norms_only
        self._starts: Any = ends - sizes
        self._bounds = list(zip(self._starts.tolist(), ends.tolist(), strict=True))
        self._counts = np.array(sizes, dtype=np.float64)
        steps = max(1, min(STEPS, RING // width))
        ring = torch.zeros(steps, width, dtype=torch.float64 if wide else torch.float32)
        shapes = [tensors[i].shape for i in indices]
        self._views: list[list[Tensor]] = [
            [row[i:j].view(shape) for (i, j), shape in zip(self._bounds, shapes, strict=True)] for row in ring
        ]
        self._rows = ring.numpy()
        self._values, self._squares = bench.values[:width], bench.squares[:width]
        self._waiting: list[Floats] = []

    def put(self, tensors: Sequence[Tensor], out: Floats) -> None:
        """Copy a step's tensors in; their results will stand in `out[indices]`, at `settle` at the latest."""
        torch._foreach_copy_(self._views[len(self._waiting)], [tensors[i] for i in self._indices])
        self._waiting.append(out)
        if len(self._waiting) == len(self._rows):
            self.settle()

    def settle(self) -> None:
        """Reduce every step that waits."""
        steps = len(self._waiting)
        if not steps:
            return
        with np.errstate(all="ignore"):
            sums = np.empty((4, steps, len(self._indices)))
            for step, row in enumerate(self._rows[:steps]):
                self._reduce(row, sums[:, step])
            total, squares, largest, zeros = sums
            if self._norms_only:
                results = norms_of(squares, self._again)
            else:
                results = statistics_of(Moments(self._counts, total, squares, largest, zeros), self._again)
        for out, result in zip(self._waiting, results, strict=True):
            out[self._indices] = result
        self._waiting = []

    def _reduce(self, row: Any, sums: Floats) -> None:
        """Fill sums (4, tensors) from the values of one step."""
        np.copyto(self._values, row)
        np.multiply(self._values, self._values, out=self._squares)
        np.add.reduceat(self._squares, self._starts, out=sums[1])
        if self._norms_only:
            return
        np.add.reduceat(self._values, self._starts, out=sums[0])
        sums[2] = np.maximum(np.maximum.reduceat(row, self._starts), -np.minimum.reduceat(row, self._starts))
        is_zero = row == 0
        sums[3] = [np.count_nonzero(is_zero[i:j]) for i, j in self._bounds] if np.count_nonzero(is_zero) else 0

    def _again(self, step: int, tensor: int) -> Tensor:
        return self._views[step][tensor]


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
