"""The values of a tensor, as counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradcheck_cli.observe.values import local
from gradcheck_cli.tape import TensorState

ROWS = 64
WIDER = {torch.bool: torch.uint8, torch.uint16: torch.int64, torch.uint32: torch.int64, torch.uint64: torch.float64}


def elements(tensor: Tensor) -> Tensor:
    """The stored real numbers: both parts of complex ones in a last dimension, the values of a sparse tensor.

    Of a distributed tensor, those that this rank has.
    """
    tensor = local(tensor.detach())
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
    return not values.numel() or bool(torch.stack(torch.aminmax(countable(values))).isfinite().all())


def can_be_bad(tensor: Tensor) -> bool:
    """Whether its dtype has NaN and Inf."""
    return tensor.is_floating_point() or tensor.is_complex()


def countable(values: Tensor) -> Tensor:
    """The same numbers in a dtype that torch can compare and reduce."""
    if values.dtype.itemsize == 1 and values.is_floating_point():
        return values.float()
    return values.to(WIDER[values.dtype]) if values.dtype in WIDER else values


def state_of(tensor: Tensor) -> TensorState:
    """Count what is in a tensor, of a sparse one in what is stored, of a distributed one in this rank's part.

    Reads it up to five times.
    """
    tensor = local(tensor)
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    values = countable(elements(tensor))
    if not values.numel():
        return TensorState(shape, dtype, tensor.numel())
    low, high = (number.item() for number in torch.aminmax(values))
    counts: dict[str, Any] = {}
    if not low - low == high - high == 0:
        bad = ~values.isfinite()
        counts = count_bad(tensor, values, bad)
        if counts["nan"] == values.numel():
            return TensorState(shape, dtype, tensor.numel(), **counts)
        finite = values[~bad]
        low, high = (number.item() for number in torch.aminmax(finite)) if finite.numel() else (float("nan"),) * 2
    bounded = low - low == high - high == 0 and not counts
    of = partial(count, parts=tensor.is_complex())
    counts["zeros"] = of(values == 0) if values.numel() != torch.count_nonzero(values) else 0
    counts["negatives"] = of(values < 0) if not (bounded and low >= 0) else 0
    counts["ones"] = of(values.abs() == 1) if low <= -1 or high >= 1 else 0
    return TensorState(shape, dtype, tensor.numel(), low=float(low), high=float(high), **counts)


def count(mask: Tensor, parts: bool) -> int:
    """How many elements; those with `parts` if one of theirs is so."""
    return int(torch.count_nonzero(mask.any(-1) if parts else mask))


def count_bad(tensor: Tensor, values: Tensor, bad: Tensor) -> dict[str, Any]:
    """The counts of NaN and Inf, and the rows that hold them."""
    of = partial(count, parts=tensor.is_complex())
    return {
        "nan": of(values.isnan()),
        "positive_inf": of(values == float("inf")),
        "negative_inf": of(values == float("-inf")),
        "bad_rows": bad_rows(tensor, bad),
    }


def bad_rows(tensor: Tensor, bad: Tensor) -> tuple[int, ...]:
    """The first indices along the first dimension; unknown for compressed sparse tensors."""
    if not tensor.dim() or tensor.layout not in (torch.strided, torch.sparse_coo):
        return ()
    rows = bad.flatten(1).any(1).nonzero()[:, 0] if bad.dim() > 1 else bad.nonzero()[:, 0]
    if tensor.layout is torch.sparse_coo:
        rows = torch.unique(tensor._indices()[0, rows])
    return tuple(rows[:ROWS].tolist())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of an operator's argument or result: itself, or those of a list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from tensors_in(item)
