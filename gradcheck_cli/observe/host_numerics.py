"""Reductions on the CPU: one compiled pass over float32 tensors, float64 blocks that stay in the cache for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.moments import norm_of, statistics_of
from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import Sums, read
from gradcheck_cli.observe.transfer import Packed
from gradcheck_cli.observe.values import Held, stored_values
from gradcheck_cli.records import Floats

BLOCK = 1 << 17


class HostReducer:
    """See `numerics.Reducer`."""

    def measure(self, tensors: Sequence[Tensor | None]) -> Floats | Packed:
        """(n, 6), see `numerics.Reducer.measure`."""
        known = library.COMPILED.describe(tensors) if library.COMPILED else None
        if known is None:
            return np.array([measure_one(tensor) for tensor in tensors if tensor is not None]).reshape(-1, 6)
        return Packed(known, 6)

    def norms(self, tensors: Sequence[Tensor | None]) -> Floats | Packed:
        """(n,), see `numerics.Reducer.norms`."""
        known = library.COMPILED.norms(tensors) if library.COMPILED else None
        if known is None:
            return np.array([norm_one(tensor) for tensor in tensors if tensor is not None], dtype=np.float64)
        return Packed(known)

    def hold(self, tensors: Sequence[Tensor]) -> Held:
        """See `numerics.Reducer.hold`."""
        known = library.COMPILED.copy(tensors) if library.COMPILED else None
        return [tensor.detach().clone() for tensor in tensors] if known is None else known

    def changes(self, held: Held, now: Sequence[Tensor]) -> tuple[Floats | Packed, Floats | Packed]:
        """(n,) and (n,), see `numerics.Reducer.changes`."""
        copies = [copy for copy in held if isinstance(copy, bytes)]
        known = library.COMPILED.changes(copies, now) if library.COMPILED and copies else None
        if known is not None:
            return Packed(known[0]), Packed(known[1])
        differences = [restored(old, new) - new.detach() for old, new in zip(held, now, strict=True)]
        return self.norms(differences), np.array([moments_of(stored_values(tensor))[2] for tensor in now])


def restored(copy: Tensor | bytes, tensor: Tensor) -> Tensor:
    """A copy of a tensor as a tensor."""
    if isinstance(copy, Tensor):
        return copy
    return torch.from_numpy(np.frombuffer(copy, dtype=np.float32).copy()).reshape(tensor.shape)


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
