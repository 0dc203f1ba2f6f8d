"""The values of a tensor, as counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from gradcheck_cli.tape import TensorState

ROWS = 64


def elements(tensor: Tensor) -> Tensor:
    """The stored real numbers: both parts of complex ones in a last dimension, the values of a sparse tensor."""
    tensor = tensor.detach()
    if tensor._is_zerotensor() or tensor.is_meta:  # these have no memory; reading a zero tensor's crashes
        return torch.zeros(tensor.shape if not tensor.is_meta else 0)
    if tensor.layout is torch.sparse_coo:
        tensor = tensor._values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.values() if tensor.layout in COMPRESSED else torch.empty(0)
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def is_finite(tensor: Tensor) -> bool:
    """Whether every element is; exact, also where sums and norms would overflow."""
    if not tensor.numel() or not can_be_bad(tensor):
        return True
    values = elements(tensor)
    return not values.numel() or bool(torch.stack(torch.aminmax(values)).isfinite().all())


def can_be_bad(tensor: Tensor) -> bool:
    """Whether its dtype has NaN and Inf."""
    return tensor.is_floating_point() or tensor.is_complex()


def state_of(tensor: Tensor) -> TensorState:
    """Count what is in a tensor; reads it up to five times."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    values = elements(tensor)
    if not values.numel():
        return TensorState(shape, dtype, tensor.numel())
    values = values.byte() if values.dtype is torch.bool else values
    low, high = (number.item() for number in torch.aminmax(values))
    counts: dict[str, Any] = {}
    if not low - low == high - high == 0:
        bad = ~values.isfinite()
        counts = count_bad(tensor, values, bad)
        finite = values[~bad]
        low, high = (number.item() for number in torch.aminmax(finite)) if finite.numel() else (float("nan"),) * 2
    counts["zeros"] = values.numel() - int(torch.count_nonzero(values))
    counts["negatives"] = int((values < 0).sum()) if not low >= 0 else 0
    counts["ones"] = int((values.abs() == 1).sum()) if low <= -1 or high >= 1 else 0
    return TensorState(shape, dtype, tensor.numel(), low=float(low), high=float(high), **counts)


def count_bad(tensor: Tensor, values: Tensor, bad: Tensor) -> dict[str, Any]:
    """The counts of NaN and Inf, and the rows that hold them."""
    rows = bad.flatten(1).any(1).nonzero()[:ROWS, 0].tolist() if tensor.dim() and values.dim() > 1 else []
    if values.dim() == 1 and tensor.dim() == 1:
        rows = bad.nonzero()[:ROWS, 0].tolist()
    return {
        "nan": int(values.isnan().sum()),
        "positive_inf": int((values == float("inf")).sum()),
        "negative_inf": int((values == float("-inf")).sum()),
        "bad_rows": tuple(rows),
    }


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of an operator's argument or result: itself, or those of a list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from tensors_in(item)
