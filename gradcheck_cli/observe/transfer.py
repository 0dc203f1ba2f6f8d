"""Bring numbers from the device to the host, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.records import Floats

Value = Tensor | Floats | float


def to_host(values: Sequence[Value]) -> list[Floats]:
    """The values as float64 arrays of their own shapes: one transfer for each accelerator among them, no more."""
    arrays: dict[int, Floats] = {}
    waiting: dict[torch.device, list[int]] = {}
    for index, value in enumerate(values):
        if isinstance(value, Tensor) and value.device.type != "cpu":
            waiting.setdefault(value.device, []).append(index)
        else:
            arrays[index] = on_host(value)
    for indices in waiting.values():
        arrays.update(transfer_together(indices, [values[i] for i in indices]))  # type: ignore[misc]
    return [arrays[index] for index in range(len(values))]


def on_host(value: Value) -> Floats:
    """A value that is here already, as an array."""
    if isinstance(value, Tensor):
        return np.asarray(value.detach().double() if value.dim() else value.item(), dtype=np.float64)
    return np.asarray(value, dtype=np.float64)


def transfer_together(indices: Sequence[int], tensors: Sequence[Tensor]) -> dict[int, Floats]:
    """Tensors of one device, by index, through one copy."""
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    together = torch.cat([tensor.reshape(-1).to(wide) for tensor in tensors]).cpu().numpy().astype(np.float64)
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    parts = np.split(together, ends[:-1])
    return {i: part.reshape(tensor.shape) for i, part, tensor in zip(indices, parts, tensors, strict=True)}
