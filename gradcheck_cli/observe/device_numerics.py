"""Reductions on an accelerator: rows of a zero-padded buffer, so that every sum runs in parallel and nothing waits.

Each tensor begins a row of its own. Rows are reduced first, then the rows of each tensor; no value is read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradcheck_cli.observe.values import Held, stored_values

WIDTH = 1024
ROWS = 4096  # 32 MiB of float64


@dataclass(frozen=True)
class Piece:
    """Elements start..stop of one tensor, at rows first_row.. of the buffer."""

    tensor: int
    start: int
    stop: int
    first_row: int

    @property
    def rows(self) -> int:
        return -(-(self.stop - self.start) // WIDTH)


class DeviceReducer:
    """See `numerics.Reducer`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._dtype = torch.float32 if device.type == "mps" else torch.float64

    @torch.no_grad()
    def measure(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """(n, 6) float64 on the device, see `numerics.Reducer.measure`."""
        there = [tensor for tensor in tensors if tensor is not None]
        if not there:
            return torch.zeros(0, 6, dtype=self._dtype, device=self._device)
        values = [stored_values(tensor).reshape(-1) for tensor in there]
        stored = self._column([value.numel() for value in values])
        counts = self._column([tensor.numel() for tensor in there])
        pivots = [first_of(value).to(self._dtype) for value in values]
        sums, largest = self._accumulate(values, pivots)
        total, squares, zeros, nonfinite, shifted, shifted_squares = sums.unbind(1)
        pivot = torch.cat(pivots)
        implicit, counts = counts - stored, counts.clamp(min=1)
        mean = total / counts
        # Around the first element, which may be far from the mean by at most sqrt(n) standard deviations.
        shifted = shifted - implicit * pivot
        shifted_squares = shifted_squares + implicit * pivot**2
        variance = (shifted_squares - shifted**2 / counts).clamp(min=0) / counts
        return torch.stack(
            [squares.sqrt(), mean, variance.sqrt(), largest, (zeros + implicit) / counts, nonfinite], dim=1
        )

    @torch.no_grad()
    def norms(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """(n,) float64 on the device: L2 norms."""
        values = [stored_values(tensor).reshape(-1) for tensor in tensors if tensor is not None]
        table = torch.zeros(len(values), dtype=self._dtype, device=self._device)
        for pieces in plan([value.numel() for value in values]):
            rows, _ = self._fill(pieces, values)
            table.index_add_(0, self._owners(pieces), rows.square().sum(1))
        return table.sqrt()

    def hold(self, tensors: Sequence[Tensor]) -> Held:
        """See `numerics.Reducer.hold`."""
        return [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def changes(self, held: Held, now: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n,) and (n,) on the device, see `numerics.Reducer.changes`."""
        before = [copy for copy in held if isinstance(copy, Tensor)]
        torch._foreach_sub_(before, list(now))
        return self.norms(before), torch.stack([largest_of(tensor) for tensor in now])

    def _column(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=self._dtype).to(self._device, non_blocking=True)

    def _owners(self, pieces: list[Piece]) -> Tensor:
        owners = [piece.tensor for piece in pieces for _ in range(piece.rows)]
        return torch.tensor(owners).to(self._device, non_blocking=True)

    def _fill(self, pieces: list[Piece], values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        rows = torch.zeros(sum(piece.rows for piece in pieces), WIDTH, dtype=self._dtype, device=self._device)
        flat = rows.view(-1)
        views = [flat.narrow(0, p.first_row * WIDTH, p.stop - p.start) for p in pieces]
        torch._foreach_copy_(views, [values[p.tensor].narrow(0, p.start, p.stop - p.start) for p in pieces])
        return rows, views

    def _accumulate(self, values: Sequence[Tensor], pivots: list[Tensor]) -> tuple[Tensor, Tensor]:
        sums = torch.zeros(len(values), 6, dtype=self._dtype, device=self._device)
        largest = torch.zeros(len(values), dtype=self._dtype, device=self._device)
        for pieces in plan([value.numel() for value in values]):
            rows, views = self._fill(pieces, values)
            padding = self._column([p.rows * WIDTH - (p.stop - p.start) for p in pieces])
            owners = self._owners(pieces)
            of_pieces = torch.tensor([p.tensor for p in pieces]).to(self._device, non_blocking=True)
            largest.scatter_reduce_(0, owners, rows.abs().amax(1), "amax")
            nonfinite = (rows * 0 != 0).sum(1)  # inf * 0 and nan * 0 are nan
            plain = [rows.sum(1), rows.square().sum(1), (rows == 0).sum(1), nonfinite]
            torch._foreach_sub_(views, [pivots[p.tensor] for p in pieces])
            table = torch.stack([*plain, rows.sum(1), rows.square().sum(1)], dim=1)
            sums.index_add_(0, owners, table.to(self._dtype))
            sums.select(1, 2).index_add_(0, of_pieces, -padding)
        return sums, largest


def largest_of(tensor: Tensor) -> Tensor:
    """The largest magnitude, 0-d; 0 for an empty tensor."""
    values = tensor.abs() if tensor.is_complex() else tensor
    low, high = torch.aminmax(values if values.numel() else values.new_zeros(1))
    return torch.maximum(-low, high)


def first_of(values: Tensor) -> Tensor:
    """(1,): the first value, or 0 where there is none."""
    return values.narrow(0, 0, 1) if values.numel() else values.new_zeros(1)


def plan(numels: Sequence[int]) -> list[list[Piece]]:
    """Cut tensors of `numels` elements into pieces, and gather pieces into buffers of at most ROWS rows."""
    buffers: list[list[Piece]] = []
    used = ROWS
    for tensor, numel in enumerate(numels):
        for start in range(0, numel, ROWS * WIDTH):
            stop = min(numel, start + ROWS * WIDTH)
            rows = -(-(stop - start) // WIDTH)
            if used + rows > ROWS:
                buffers.append([])
                used = 0
            buffers[-1].append(Piece(tensor, start, stop, used))
            used += rows
    return buffers
