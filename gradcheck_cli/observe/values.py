"""The real numbers that a gradient holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Held = Sequence[Tensor | bytes]
"""Copies of parameters, as a reducer made them."""


def stored_values(tensor: Tensor) -> Tensor:
    """The stored values of a strided or sparse, real or complex tensor as a real strided one.

    No copy of a real strided tensor. Complex values become magnitudes, in float64 so that squares cannot overflow.
    """
    values = tensor if tensor.layout is torch.strided else tensor.coalesce().values()
    return values.to(torch.complex128).abs() if values.is_complex() else values


def local(tensor: Tensor) -> Tensor:
    """What this rank has of a distributed tensor, its memory not copied; a plain one as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
