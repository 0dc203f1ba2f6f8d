"""Parameters of which each rank holds a part only: what is measured of the parts is put together here.

A distributed tensor is split along some dimensions of its mesh, and the same along the others. Sums run over the former
only, so that what is there several times counts once. They are of whole tables: a few collectives for many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gradcheck_cli.observe.values import local
from gradcheck_cli.records import Floats, Ints

Place = tuple[Any, tuple[int, ...]]
"""A device mesh, and the dimensions of it that a tensor is split along."""


class Shards:
    """Of these parameters; those that every rank has as a whole are left alone. `counts` (n,) are the local sizes."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        places: dict[Place, list[int]] = {}
        for index, parameter in enumerate(parameters):
            if split := split_dimensions(parameter):
                places.setdefault((parameter.device_mesh, split), []).append(index)  # type: ignore[attr-defined]
        self._places = {place: np.array(indices) for place, indices in places.items()}
        self.counts: Ints = np.array([local(parameter).numel() for parameter in parameters], dtype=np.int64)
        self.all: Ints = np.array(sorted(i for indices in places.values() for i in indices), dtype=np.int64)

    def add(self, table: Floats) -> Floats:
        """(n, columns): the rows of split parameters summed over their parts."""
        return self._reduce(table, dist.ReduceOp.SUM)

    def largest(self, table: Floats) -> Floats:
        """(n, columns): the same with the maximum, of what has no NaN."""
        return self._reduce(table, dist.ReduceOp.MAX)

    def put_together(self, norms: Floats) -> Floats:
        """(n,) L2 norms of the whole parameters, from those of the parts."""
        squares = self.add(np.square(norms)[:, None])[:, 0]
        whole: Floats = norms.copy()
        whole[self.all] = np.sqrt(squares[self.all])
        return whole

    def _reduce(self, table: Floats, operation: Any) -> Floats:
        whole: Floats = table.copy()
        for (mesh, dimensions), indices in self._places.items():
            numbers = torch.from_numpy(np.ascontiguousarray(table[indices])).to(mesh.device_type)
            for dimension in dimensions:
                dist.all_reduce(numbers, operation, group=mesh.get_group(dimension))
            whole[indices] = numbers.cpu().numpy()
        return whole

    def statistics(self, tables: Floats) -> Floats:
        """(steps, n, 6) `numerics.COLUMNS` of whole gradients from those of the parts; NaN where there is no gradient.

        Parts of different means are put together as in Chan, Golub and LeVeque, "Updating formulae and a pairwise
        algorithm for computing sample variances" (1979).
        """
        norm, mean, std, largest, zeros, nonfinite = np.moveaxis(tables.transpose(1, 0, 2), 2, 0)
        counts = self.counts[:, None] * np.ones(norm.shape)
        empty = counts == 0
        norm, mean, std, largest, zeros = (np.where(empty, 0, one) for one in (norm, mean, std, largest, zeros))
        sums = [counts, mean * counts, np.square(norm), zeros * counts, nonfinite, np.isnan(largest)]
        count, total, squares, zero, bad, unknown = split(self.add(np.concatenate(sums, 1)), 6)
        with np.errstate(all="ignore"):
            middle = total / count
            spread = self.add(np.where(empty, 0, counts * (np.square(std) + np.square(mean - middle))))
            top = np.where(unknown > 0, np.nan, self.largest(np.nan_to_num(largest, posinf=np.inf)))
            columns = [np.sqrt(squares), middle, np.sqrt(spread / count), top, zero / count, bad]
        whole: Floats = np.stack(columns, axis=2).transpose(1, 0, 2)
        result: Floats = tables.copy()
        result[:, self.all] = whole[:, self.all]
        return result


def split(table: Floats, parts: int) -> list[Floats]:
    """Side by side again."""
    return np.split(table, parts, axis=1)


def split_dimensions(tensor: Tensor) -> tuple[int, ...]:
    """The dimensions of its mesh that a distributed tensor is split along; none for a plain one."""
    placements = getattr(tensor, "placements", ())
    return tuple(number for number, placement in enumerate(placements) if not placement.is_replicate())


def locals_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this rank has of each."""
    with torch.no_grad():
        return [local(tensor) for tensor in tensors]


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """What this rank has of each parameter's gradient; those still to be summed up are so, all of a mesh at once."""
    with torch.no_grad():
        gradients = [parameter.grad for parameter in parameters]
        found = [None if gradient is None else local(gradient) for gradient in gradients]
        partial: dict[Place, list[int]] = {}
        for index, gradient in enumerate(gradients):
            if dimensions := partial_dimensions(gradient):
                partial.setdefault((gradient.device_mesh, dimensions), []).append(index)  # type: ignore[union-attr]
        for (mesh, dimensions), indices in partial.items():
            summed = sum_over(mesh, dimensions, [found[i] for i in indices])  # type: ignore[misc]
            for index, one in zip(indices, summed, strict=True):
                found[index] = one
    return found


def partial_dimensions(gradient: Tensor | None) -> tuple[int, ...]:
    """The dimensions of its mesh over which a gradient is still to be summed."""
    placements = getattr(gradient, "placements", ())
    return tuple(number for number, placement in enumerate(placements) if placement.is_partial())


def sum_over(mesh: Any, dimensions: Sequence[int], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of the tensors, summed through one buffer."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    for dimension in dimensions:
        dist.all_reduce(flat, group=mesh.get_group(dimension))
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
