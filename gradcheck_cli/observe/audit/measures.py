"""Single numbers of a loop's tensors; they stay on their device."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor


def number_in(value: object) -> Tensor | float:
    """A number, a copy of a tensor of one element where that must be waited for; NaN of anything else."""
    if isinstance(value, (int, float)):
        return float(value)
    if type(value) not in (Tensor, torch.nn.Parameter) or value.numel() != 1:  # type: ignore[attr-defined]
        return nan
    if value.is_cpu and value.is_floating_point():  # type: ignore[attr-defined]
        return value.item()  # type: ignore[attr-defined, no-any-return]
    return value.detach().reshape(()).clone()  # type: ignore[attr-defined, no-any-return]


def count_nonfinite(tensor: Tensor) -> Tensor:
    """How many elements are NaN or Inf: () int64."""
    with torch.no_grad():
        return torch.logical_not(torch.isfinite(tensor.detach())).sum()


@torch.no_grad()
def cosine_of_clamp(parameters: Sequence[Tensor], limit: Any) -> Tensor | float:
    """The cosine between all gradients together and themselves clamped to [-limit, limit]: () float32, or NaN."""
    dots = [
        torch.stack([torch.vdot(g, c), torch.vdot(g, g), torch.vdot(c, c)])
        for p in parameters
        if p.grad is not None and not p.grad.is_complex() and p.grad.layout is torch.strided
        for g in [p.grad.detach().reshape(-1).float()]
        for c in [torch.clamp(g, -limit, limit)]
    ]
    if not dots:
        return nan
    product, before, after = torch.stack([one.to(dots[0].device) for one in dots]).sum(dim=0).unbind()
    return product / (before * after).sqrt()
