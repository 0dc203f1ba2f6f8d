"""Reductions on the CPU: small tensors in packs, large ones in float64 blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.moments import Moments, norms_of, statistics_of
from gradcheck_cli.observe.packs import Pack, split_by_size
from gradcheck_cli.observe.values import stored_values
from gradcheck_cli.records import Floats

SMALL = 1 << 15  # up to here, a share of one packed pass is cheaper than calls of a tensor's own
BLOCK = 1 << 19

Shape = tuple[torch.Size, torch.layout]


class Pending:
    """Results that are complete once their packs are settled."""

    def __init__(self, results: Floats, packs: Sequence[Pack]) -> None:
        self._results = results
        self._packs = packs

    def result(self) -> Floats:
        """The results; settles what still waits, of this step and of others."""
        for pack in self._packs:
            pack.settle()
        return self._results


class HostReducer:
    """See `numerics.Reducer`. Packs are kept for the shapes last seen."""

    def __init__(self) -> None:
        self._shapes: list[Shape] = []
        self._norms_only = False
        self._packs: list[Pack] = []
        self._alone: list[int] = []
        self._block = torch.empty(0, dtype=torch.float64)

    def measure(self, tensors: Sequence[Tensor]) -> Pending:
        """(n, 6), see `numerics.Reducer.measure`."""
        return self._reduce(tensors, np.empty((len(tensors), 6)), norms_only=False)

    def norms(self, tensors: Sequence[Tensor]) -> Pending:
        """(n,), see `numerics.Reducer.norms`."""
        return self._reduce(tensors, np.empty(len(tensors)), norms_only=True)

    def _reduce(self, tensors: Sequence[Tensor], out: Floats, norms_only: bool) -> Pending:
        shapes = [(tensor.shape, tensor.layout) for tensor in tensors]
        if shapes != self._shapes or norms_only is not self._norms_only:
            self._plan(tensors, shapes, norms_only)
        for pack in self._packs:
            pack.put(tensors, out)
        for index in self._alone:
            out[index] = self._reduce_one(tensors[index], norms_only)
        return Pending(out, self._packs)

    def _plan(self, tensors: Sequence[Tensor], shapes: list[Shape], norms_only: bool) -> None:
        for pack in self._packs:
            pack.settle()
        sizes = [tensor.numel() for tensor in tensors]
        small = [i for i, tensor in enumerate(tensors) if 0 < sizes[i] <= SMALL and is_plain(tensor)]
        self._alone = sorted(set(range(len(tensors))) - set(small))
        self._packs = [Pack(indices, tensors, norms_only) for indices in split_by_size(small, sizes)]
        self._block = torch.empty(BLOCK if self._alone else 0, dtype=torch.float64)
        self._shapes, self._norms_only = shapes, norms_only

    def _reduce_one(self, tensor: Tensor, norms_only: bool) -> Floats:
        values = stored_values(tensor)
        with np.errstate(all="ignore"):
            if norms_only:
                squares = sum(float(torch.dot(block, block)) for block, _ in self._blocks(values))
                row = norms_of(np.array([[squares]]), lambda *_: values)
            else:
                row = statistics_of(self._moments(values, tensor.numel()), lambda *_: values)
        return cast(Floats, row[0, 0])

    def _blocks(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.split(values.reshape(-1), BLOCK) if values.numel() else ():
            block = self._block[: len(part)]
            block.copy_(part)
            yield block, part

    def _moments(self, values: Tensor, count: int) -> Moments:
        total = squares = largest = 0.0
        zeros = float(count - values.numel())
        for block, part in self._blocks(values):
            squares += float(torch.dot(block, block))
            total += float(block.sum())
            low, high = torch.aminmax(part)
            largest = float(np.maximum(largest, np.maximum(-float(low), float(high))))
            zeros += float(block.eq_(0).sum())
        sums = [np.array([[number]]) for number in (total, squares, largest, zeros)]
        return Moments(np.array([max(count, 1.0)]), *sums)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor can be packed: its layout and dtype are not those of special cases."""
    return tensor.layout is torch.strided and not tensor.is_complex()
