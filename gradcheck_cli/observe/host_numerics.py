"""Reductions on the CPU: one compiled pass over float32 tensors, float64 blocks that stay in the cache for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.moments import norm_of, statistics_of
from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import Places, Sums, are_direct, places_of, read
from gradcheck_cli.observe.values import stored_values
from gradcheck_cli.records import Floats

BLOCK = 1 << 17


class HostReducer:
    """See `numerics.Reducer`. Parameters are looked at closely when they are new, or lie elsewhere than before."""

    def __init__(self) -> None:
        self._known: Sequence[Tensor] = ()
        self._places = Places((), ())

    def measure(self, tensors: Sequence[Tensor]) -> Floats:
        """(n, 6), see `numerics.Reducer.measure`."""
        if library.COMPILED and are_direct(tensors):
            return library.COMPILED.describe(tensors)
        return np.array([measure_one(tensor) for tensor in tensors]).reshape(len(tensors), 6)

    def norms(self, tensors: Sequence[Tensor]) -> Floats:
        """(n,), see `numerics.Reducer.norms`."""
        if library.COMPILED and self._find(tensors):
            return library.COMPILED.norms(self._places)
        return np.array([norm_one(tensor) for tensor in tensors], dtype=np.float64)

    def _find(self, tensors: Sequence[Tensor]) -> bool:
        if self._known is tensors and self._places.are_those_of(tensors):
            return True
        if not are_direct(tensors):
            return False
        self._known, self._places = tensors, places_of(tensors)
        return True

    def changes(self, before: Sequence[Tensor], now: Sequence[Tensor]) -> tuple[Floats, Floats]:
        """(n,) and (n,), see `numerics.Reducer.changes`."""
        if library.COMPILED and are_direct([*before, *now]):
            moved = library.COMPILED.compare(places_of(before), places_of(now))
            return moved[:, 0], library.COMPILED.describe(now)[:, 3]
        differences = [old.detach() - new.detach() for old, new in zip(before, now, strict=True)]
        return self.norms(differences), np.array([moments_of(stored_values(tensor))[2] for tensor in now])


@torch.no_grad()
def measure_one(tensor: Tensor) -> Floats:
    """(6,) of any tensor."""
    values = stored_values(tensor)
    sums = moments_of(values)
    zeros = sums[3] + tensor.numel() - values.numel()
    return statistics_of((*sums[:3], zeros), values, tensor.numel())


@torch.no_grad()
def norm_one(tensor: Tensor) -> float:
    """The L2 norm of any tensor."""
    values = stored_values(tensor)
    return norm_of(moments_of(values)[1], values)


@torch.no_grad()
def moments_of(values: Tensor) -> Sums:
    """Sum, sum of squares, largest magnitude (NaN if one is) and number of zeros of a strided real tensor."""
    known = read(values)
    if known is not None:
        return known
    total = squares = largest = zeros = 0.0
    for block in blocks_of(values):
        total += float(block.sum())
        squares += float(torch.dot(block, block))
        low, high = torch.aminmax(block)
        largest = float(np.maximum(largest, np.maximum(-float(low), float(high))))
        zeros += block.numel() - int(torch.count_nonzero(block))
    return total, squares, largest, zeros


def blocks_of(values: Tensor) -> Iterator[Tensor]:
    """All elements in float64, block by block."""
    for part in torch.split(values.detach().reshape(-1), BLOCK) if values.numel() else ():
        yield part.to("cpu", torch.float64)
