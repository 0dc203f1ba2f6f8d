"""Bring numbers from the device to the host, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.records import Floats


@dataclass(slots=True)
class Packed:
    """float64 numbers, (n,) or in rows of so many `columns`. An array of them is made when there is time."""

    data: bytes
    columns: int = 0

    def __len__(self) -> int:
        return len(self.data) // (8 * (self.columns or 1))

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return (len(self), self.columns) if self.columns else (len(self),)

    def unpack(self) -> Floats:
        """The array."""
        numbers = np.frombuffer(self.data)
        return numbers.reshape(-1, self.columns) if self.columns else numbers


Here = Floats | Packed | float
"""What is on the host."""
Value = Tensor | Here


def bring(tables: Sequence[dict[str, Value]]) -> Sequence[dict[str, Any]]:
    """The same tables of values, each now a `Here`: one transfer for each accelerator."""
    tensors = [value for table in tables for value in table.values() if isinstance(value, Tensor)]
    if not tensors:
        return tables
    arrays = iter(to_host(tensors))
    return [
        {name: next(arrays) if isinstance(value, Tensor) else value for name, value in table.items()}
        for table in tables
    ]


def to_host(values: Sequence[Value]) -> list[Floats]:
    """The values as float64 arrays of their own shapes: one transfer for each accelerator among them, no more."""
    waiting: dict[torch.device, list[int]] = {}
    for index, value in enumerate(values):
        if isinstance(value, Tensor) and not value.is_cpu:
            waiting.setdefault(value.device, []).append(index)
    arrived: dict[int, Floats] = {}
    for indices in waiting.values():
        arrived.update(transfer_together(indices, [values[i] for i in indices]))  # type: ignore[misc]
    return [arrived[index] if index in arrived else on_host(value) for index, value in enumerate(values)]


def on_host(value: Value) -> Floats:
    """A value that is here already, as an array."""
    if isinstance(value, Packed):
        return value.unpack()
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Tensor):
        return np.asarray(value.detach().double() if value.dim() else value.item(), dtype=np.float64)
    return np.asarray(value, dtype=np.float64)


def stack(values: Sequence[Floats | Packed]) -> Floats:
    """(values, *shape): values of one shape in one array."""
    packed = [value.data for value in values if isinstance(value, Packed)]
    if len(packed) < len(values):
        return np.stack([on_host(value) for value in values])
    return np.frombuffer(b"".join(packed)).reshape(len(values), *values[0].shape)


def transfer_together(indices: Sequence[int], tensors: Sequence[Tensor]) -> dict[int, Floats]:
    """Tensors of one device, by index, through one copy."""
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    together = torch.cat([tensor.reshape(-1).to(wide) for tensor in tensors]).cpu().numpy().astype(np.float64)
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    parts = np.split(together, ends[:-1])
    return {i: part.reshape(tensor.shape) for i, part, tensor in zip(indices, parts, tensors, strict=True)}
