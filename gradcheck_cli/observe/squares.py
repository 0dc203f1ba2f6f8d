"""Sums of squares of large tensors, where no compiled reduction can read them."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 19


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Sum of |x|^2 as a 0-d float64 tensor on the same device (float32 on mps), without host synchronisation."""
    return widened_squares(torch.view_as_real(tensor).reshape(-1) if tensor.is_complex() else tensor.reshape(-1))


def widened_squares(flat: Tensor) -> Tensor:
    """The same of a real (n,), block by block: every element is widened before it is squared."""
    wide = torch.float32 if flat.device.type == "mps" else torch.float64
    if flat.numel() <= BLOCK:
        widened = flat.to(wide)
        return torch.dot(widened, widened)
    return torch.stack([widened_squares(block) for block in torch.split(flat, BLOCK)]).sum()
