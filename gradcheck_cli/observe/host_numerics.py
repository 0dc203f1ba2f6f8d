"""Reductions on the CPU: small tensors packed into one float64 buffer, large ones in blocks that fit the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.values import stored_values
from gradcheck_cli.records import Bools, Floats, Ints

SMALL = 1 << 15  # up to here, a share of one packed pass is cheaper than calls of a tensor's own
PACK = 1 << 18
BLOCK = 1 << 19


@dataclass(frozen=True)
class Pack:
    """Small tensors side by side in one buffer; `indices` says which, `views` are the places to copy them to."""

    indices: list[int]
    views: list[Tensor]
    buffer: Floats
    squares: Floats
    starts: Ints
    ends: Ints

    @classmethod
    def of(cls, indices: list[int], tensors: Sequence[Tensor]) -> Pack:
        """Room for the tensors at `indices`."""
        ends = np.cumsum([tensors[i].numel() for i in indices])
        starts = np.concatenate([[0], ends[:-1]])
        buffer = torch.zeros(int(ends[-1]), dtype=torch.float64)
        views = [buffer[i:j].view(tensors[k].shape) for i, j, k in zip(starts, ends, indices, strict=True)]
        return cls(indices, views, buffer.numpy(), np.empty(len(buffer)), starts, ends)

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copy the tensors in and square them."""
        torch._foreach_copy_(self.views, [tensors[i] for i in self.indices])
        np.multiply(self.buffer, self.buffer, out=self.squares)

    def count_zeros(self) -> list[int]:
        """How many elements of each tensor are exactly zero."""
        is_zero = self.buffer == 0
        if not np.count_nonzero(is_zero):
            return [0] * len(self.indices)
        bounds = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [int(np.count_nonzero(is_zero[i:j])) for i, j in bounds]


class HostReducer:
    """See `numerics.Reducer`. Buffers are kept for the shapes last seen."""

    def __init__(self) -> None:
        self._shapes: list[torch.Size] = []
        self._packs: list[Pack] = []
        self._large: list[int] = []
        self._block = torch.empty(0, dtype=torch.float64)

    def measure(self, tensors: Sequence[Tensor]) -> Floats:
        """(n, 6) float64, see `numerics.Reducer.measure`."""
        values = [stored_values(tensor) for tensor in tensors]
        self._plan(values)
        sums = np.empty((len(values), 4))
        with np.errstate(all="ignore"):
            for pack in self._packs:
                pack.fill(values)
                sums[pack.indices] = reduce_pack(pack)
            for index in self._large:
                sums[index] = self._reduce(values[index])
            return finish(sums, tensors, values)

    def norms(self, tensors: Sequence[Tensor]) -> Floats:
        """(n,) float64: the L2 norm of each tensor."""
        values = [stored_values(tensor) for tensor in tensors]
        self._plan(values)
        squares = np.empty(len(values))
        with np.errstate(all="ignore"):
            for pack in self._packs:
                pack.fill(values)
                squares[pack.indices] = np.add.reduceat(pack.squares, pack.starts)
            for index in self._large:
                squares[index] = sum(float(torch.dot(block, block)) for block, _ in self._blocks(values[index]))
            norms: Floats = np.sqrt(squares)
            for index in np.flatnonzero(~in_range(squares)).tolist():
                norms[index] = exact_norm(values[index], norms[index])
        return norms

    def _plan(self, tensors: Sequence[Tensor]) -> None:
        shapes = [tensor.shape for tensor in tensors]
        if shapes == self._shapes:
            return
        sizes = [tensor.numel() for tensor in tensors]
        self._large = [i for i, size in enumerate(sizes) if not 0 < size <= SMALL]
        small = [i for i, size in enumerate(sizes) if 0 < size <= SMALL]
        self._packs = [Pack.of(indices, tensors) for indices in split_by_size(small, sizes)]
        self._block = torch.empty(BLOCK if self._large else 0, dtype=torch.float64)
        self._shapes = shapes

    def _blocks(self, tensor: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        if not tensor.numel():
            return
        for values in torch.split(tensor.reshape(-1), BLOCK):
            block = self._block[: len(values)]
            block.copy_(values)
            yield block, values

    def _reduce(self, tensor: Tensor) -> tuple[float, float, float, float]:
        total = squares = largest = zeros = 0.0
        for block, values in self._blocks(tensor):
            squares += float(torch.dot(block, block))
            total += float(block.sum())
            low, high = torch.aminmax(values)
            largest = float(np.maximum(largest, np.maximum(-float(low), float(high))))
            zeros += float(block.eq_(0).sum())
        return total, squares, largest, zeros


def split_by_size(indices: list[int], sizes: Sequence[int]) -> list[list[int]]:
    """Runs of indices whose sizes together are at most PACK."""
    runs: list[list[int]] = []
    used = PACK
    for index in indices:
        if used + sizes[index] > PACK:
            runs.append([])
            used = 0
        runs[-1].append(index)
        used += sizes[index]
    return runs


def reduce_pack(pack: Pack) -> Floats:
    """(tensors, 4): sum, sum of squares, max |x| and number of zeros of each tensor in a filled pack."""
    sums = np.empty((len(pack.indices), 4))
    sums[:, 0] = np.add.reduceat(pack.buffer, pack.starts)
    sums[:, 1] = np.add.reduceat(pack.squares, pack.starts)
    np.sqrt(np.maximum.reduceat(pack.squares, pack.starts), out=sums[:, 2])
    sums[:, 3] = pack.count_zeros()
    return sums


def finish(sums: Floats, tensors: Sequence[Tensor], values: Sequence[Tensor]) -> Floats:
    """(n, 6) statistics of `tensors` from the (n, 4) sums over the `values` that they store."""
    counts = np.array([max(tensor.numel(), 1) for tensor in tensors])
    total, squares, largest, zeros = sums.T
    statistics = np.zeros((len(counts), 6))
    np.sqrt(squares, out=statistics[:, 0])
    mean = np.divide(total, counts, out=statistics[:, 1])
    variance = squares / counts - mean * mean
    np.sqrt(variance, out=statistics[:, 2])
    statistics[:, 3] = largest
    np.divide(zeros, counts, out=statistics[:, 4])
    # In float64, E[x^2] - E[x]^2 keeps six digits only while it is above 1e-7 of E[x]^2.
    sound = (variance > 1e-7 * mean * mean) & in_range(squares)
    for index in np.flatnonzero(~sound).tolist():
        correct(statistics[index], values[index], int(counts[index]))
    for row, (tensor, stored) in enumerate(zip(tensors, values, strict=True)):
        if tensor.layout is not torch.strided:
            statistics[row, 4] += 1 - stored.numel() / counts[row]
    return statistics


def in_range(squares: Floats) -> Bools:
    """Where a sum of squares is finite, and large enough for float64 to have lost none of its terms."""
    return (squares > 1e-280) & (squares < 1e300)


def correct(statistics: Floats, values: Tensor, count: int) -> None:
    """Mend one row: count non-finite elements, or take norm, mean and std from two passes over scaled values."""
    largest = statistics[3]
    if not np.isfinite(largest):
        statistics[5] = values.numel() - int(torch.isfinite(values).sum())
    elif largest == 0 or count == 1:
        statistics[0], statistics[2] = largest, 0.0
    else:
        norm, mean, std = exact(values)
        share = values.numel() / count
        spread = np.hypot(std * np.sqrt(share), mean * np.sqrt(share * (1 - share)))
        statistics[:3] = norm, mean * share, spread


def exact_norm(values: Tensor, norm: float) -> float:
    """The norm in two passes where one pass left the range of float64; `norm` where it truly is 0, inf or NaN."""
    return exact(values)[0] if values.any() and values.isfinite().all() else norm


def exact(tensor: Tensor) -> tuple[float, float, float]:
    """norm, mean and std of finite values that are not all zero, in two passes over values scaled to at most 1."""
    values = tensor.to(torch.float64)
    largest = float(values.abs().max())
    scaled = values / largest
    mean = scaled.mean()
    std = (scaled - mean).square().mean().sqrt()
    return float(scaled.norm()) * largest, float(mean) * largest, float(std) * largest
