"""Sums of squares of large tensors."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 19
SMALL = 1 << 16  # below, fewer calls are quicker than fewer bytes
ROW = 128  # torch adds float32 naively: rows of 4096 equal values are 6e-6 off, rows of 128 at most 3e-7
SMALLEST, LARGEST = 1e-15, 1e15


def sum_of_squares(tensor: Tensor) -> Tensor:
    """Sum of |x|^2 as a 0-d float64 tensor on the same device (float32 on mps), without host synchronisation.

    On a CPU, float32 norms of short rows, put together in float64, are right to 3e-7 (1e-9 for random values) at little
    more than the cost of one read.
    Where values are too large or too small for that, and on accelerators, every element is widened first.
    """
    flat = torch.view_as_real(tensor).reshape(-1) if tensor.is_complex() else tensor.reshape(-1)
    if flat.device.type == "cpu" and flat.numel() > SMALL and flat.dtype is torch.float32:
        norms = row_norms(flat)
        if SMALLEST < norms.max() < LARGEST:
            return torch.dot(norms, norms)
    return widened_squares(flat)


def row_norms(flat: Tensor) -> Tensor:
    """(rows,) float64: L2 norms of runs of ROW elements of flat (n,) float32, n >= ROW; the last run is shorter."""
    whole = flat.numel() // ROW * ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
    rest = torch.linalg.vector_norm(flat[whole:])
    return torch.cat([rows, rest.reshape(1)]).to(torch.float64)


def widened_squares(flat: Tensor) -> Tensor:
    """The sum in float64 throughout, block by block."""
    wide = torch.float32 if flat.device.type == "mps" else torch.float64
    if flat.numel() <= BLOCK:
        widened = flat.to(wide)
        return torch.dot(widened, widened)
    return torch.stack([widened_squares(block) for block in torch.split(flat, BLOCK)]).sum()
