"""Samples of large tensors, as views: nothing is copied, nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcheck_cli.observe.native.library import read

MOST = 1 << 14
Term = Tensor | float | None
"""A number that may still be on the device, 0-d; None where there is none to tell."""


def thin(tensor: Tensor, most: int = MOST, keep: tuple[int, ...] = ()) -> Tensor:
    """A view of about `most` elements at even distances; dimensions in `keep` (not negative) stay whole.

    Every second element of the longest other dimension is left out until it is small enough.
    """
    while tensor.numel() > most:
        free = [(size, dim) for dim, size in enumerate(tensor.shape) if dim not in keep and size > 1]
        if not free:
            return tensor
        size, dim = max(free)
        step = min(size, max(2, tensor.numel() // most))
        tensor = every(tensor, dim, step)
    return tensor


def every(tensor: Tensor, dim: int, step: int) -> Tensor:
    """A view of every `step`-th element along a dimension. No indexing, which fake tensors of a device lack."""
    sliced: Tensor = torch.ops.aten.slice.Tensor(tensor, dim, None, None, step) if step > 1 else tensor
    return sliced


def first(tensor: Tensor, dim: int, most: int) -> Tensor:
    """A view of up to `most` elements along a dimension."""
    return tensor.narrow(dim, 0, min(most, tensor.shape[dim]))


def zero_fraction(values: Tensor) -> Term:
    """How much of a tensor is exactly 0."""
    sums = read(values)
    return 1 - torch.count_nonzero(values) / values.numel() if sums is None else sums[3] / values.numel()


def mean_square(tensor: Tensor) -> Tensor | float:
    """Mean of |x|^2, of a sample where all can't be read at once."""
    sums = read(tensor)
    if sums is not None:
        return sums[1] / tensor.numel()
    values = thin(tensor.detach())
    values = values.abs() if values.is_complex() else values
    return widened(values).square().mean()


def widened(values: Tensor) -> Tensor:
    """The same numbers in float32 or better."""
    return values if values.element_size() >= 4 else values.float()
