"""Small tensors side by side in one buffer, so that a few calls reduce those of many steps.

A step of a small model takes as long as a hundred calls of NumPy. So a step only copies its tensors into a ring; some
steps later each tensor is reduced over all of them at once, by code and in a float64 buffer that stay in the cache.
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
FEW = 1 << 11
"""Tensors of up to so many elements are reduced by segment; larger ones are quicker by calls of their own."""


class Bench:
    """Room to work for all packs of a reducer: values and their squares, in float64."""

    def __init__(self) -> None:
        self.values, self.squares = np.zeros((2, ELEMENTS))

    def take(self, rows: int, width: int) -> tuple[Floats, Floats]:
        """Both, as (rows, width)."""
        return self.values[: rows * width].reshape(rows, width), self.squares[: rows * width].reshape(rows, width)


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
        self._indices = sorted(indices, key=lambda index: tensors[index].numel() > FEW)
        sizes = [tensors[i].numel() for i in self._indices]
        ends = np.cumsum(sizes)
        width, few = sum(sizes), sum(size <= FEW for size in sizes)
        wide = any(tensors[i].dtype is torch.float64 for i in indices)
        self._norms_only, self._bench = norms_only, bench
        self._starts: Any = (ends - sizes)[:few]
        self._bounds = list(zip((ends - sizes).tolist(), ends.tolist(), strict=True))
        self._counts = np.array(sizes, dtype=np.float64)
        steps = max(1, min(STEPS, RING // width))
        ring = torch.zeros(steps, width, dtype=torch.float64 if wide else torch.float32)
        shapes = [tensors[i].shape for i in self._indices]
        self._views: list[list[Tensor]] = [
            [row[i:j].view(shape) for (i, j), shape in zip(self._bounds, shapes, strict=True)] for row in ring
        ]
        self._rows = ring.numpy()
        self._waiting: list[Floats] = []

    def put(self, tensors: Sequence[Tensor], out: Floats) -> None:
        """Copy a step's tensors in; their results will stand in `out[indices]`, at `settle` at the latest."""
        torch._foreach_copy_(self._views[len(self._waiting)], [tensors[i] for i in self._indices])
        self._waiting.append(out)
        if len(self._waiting) == len(self._rows):
            self.settle()

    def settle(self) -> None:
        """Reduce every step that waits."""
        if not self._waiting:
            return
        with np.errstate(all="ignore"):
            sums = self._sum(self._rows[: len(self._waiting)])
            total, squares, largest, zeros = sums
            if self._norms_only:
                results = norms_of(squares, self._again)
            else:
                results = statistics_of(Moments(self._counts, total, squares, largest, zeros), self._again)
        for out, result in zip(self._waiting, results, strict=True):
            out[self._indices] = result
        self._waiting = []

    def _sum(self, rows: Floats) -> Floats:
        """(4, steps, tensors): sum, sum of squares, largest magnitude and number of zeros, of rows (steps, width)."""
        sums = np.empty((4, len(rows), len(self._indices)))
        few = len(self._starts)
        if few:
            self._sum_segments(rows[:, : self._bounds[few - 1][1]], sums[:, :, :few])
        for number, (i, j) in enumerate(self._bounds[few:], few):
            self._sum_rows(rows[:, i:j], sums[:, :, number])
        return sums

    def _sum_segments(self, rows: Floats, sums: Floats) -> None:
        for steps in self._chunks(rows):
            part, out = rows[steps], sums[:, steps]
            values, squares = self._bench.take(*part.shape)
            np.copyto(values, part)
            np.multiply(values, values, out=squares)
            np.add.reduceat(squares, self._starts, axis=1, out=out[1])
            if not self._norms_only:
                np.add.reduceat(values, self._starts, axis=1, out=out[0])
                largest, smallest = (ufunc.reduceat(part, self._starts, axis=1) for ufunc in (np.maximum, np.minimum))
                out[2] = np.maximum(largest, -smallest)
                is_zero = part == 0
                out[3] = np.add.reduceat(is_zero, self._starts, axis=1, dtype=np.int64) if is_zero.any() else 0

    def _sum_rows(self, rows: Floats, sums: Floats) -> None:
        for steps in self._chunks(rows):
            part, out = rows[steps], sums[:, steps]
            values = torch.from_numpy(self._bench.take(*part.shape)[0])
            values.copy_(torch.from_numpy(part))
            out[1] = np.square(torch.linalg.vector_norm(values, dim=1).numpy())
            if not self._norms_only:
                out[0] = values.sum(1).numpy()
                out[2] = np.maximum(np.maximum.reduce(part, axis=1), -np.minimum.reduce(part, axis=1))
                is_zero = part == 0
                out[3] = [np.count_nonzero(row) for row in is_zero] if is_zero.any() else 0

    @staticmethod
    def _chunks(rows: Floats) -> list[slice]:
        """So many steps at a time as the bench holds."""
        size = max(1, ELEMENTS // rows.shape[1])
        return [slice(start, start + size) for start in range(0, len(rows), size)]

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
