"""Batches from the user's dataloader, as many as are needed, on the device."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError


@dataclass(frozen=True)
class Batch:
    """A batch and its place: `index` within its `epoch`, both from 0."""

    index: int
    epoch: int
    data: Any


def windows(
    dataloader: Iterable[Any], length: int, join: Callable[[Sequence[Any]], list[Any]] = list
) -> Generator[list[Batch], None, None]:
    """Batches in windows of `length` for gradient accumulation, epoch after epoch; an epoch's last may be shorter.

    What `join` makes of the data of each window takes its place.
    Ends with the data when the dataloader is an iterator that is used up. Raises TargetError when there is no first
    batch, UserCodeError when the dataloader raises.
    """
    epoch = 0
    while True:
        seen, window = 0, []
        for data in guarded(dataloader, epoch):
            window.append(Batch(seen, epoch, data))
            seen += 1
            if len(window) == length:
                yield joined(window, join)
                window = []
        if window:
            yield joined(window, join)
        if not seen and not epoch:
            raise TargetError("the dataloader is empty", "it yielded no batch: check the dataset and drop_last")
        if not seen:
            return
        epoch += 1


def joined(window: list[Batch], join: Callable[[Sequence[Any]], list[Any]]) -> list[Batch]:
    """The same batches with other data."""
    joint = join([batch.data for batch in window])
    return [replace(batch, data=data) for batch, data in zip(window, joint, strict=True)]


def guarded(dataloader: Iterable[Any], epoch: int) -> Iterator[Any]:
    """One pass over the dataloader, its errors made readable."""
    where = f"the dataloader failed in epoch {epoch}"
    with user_code(where):
        iterator = iter(dataloader)
    for number in range(2**63):
        with user_code(f"{where}, at batch {number}"):
            try:
                data = next(iterator)
            except StopIteration:
                return
        yield data


def move(value: Any, device: torch.device) -> Any:
    """The same batch with every tensor on `device`: in mappings, sequences, named tuples and dataclasses, nested.

    What has a `to` of its own (transformers' BatchEncoding, say) is asked to move itself.
    """

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.to(device, non_blocking=True)
        return leaf.to(device) if callable(getattr(leaf, "to", None)) else NotImplemented

    return mapped(value, moved)


def clone(value: Any) -> Any:
    """A copy of a batch that changes made in place to the original do not reach."""

    def cloned(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.detach().clone().requires_grad_() if leaf.requires_grad else leaf.clone()
        return leaf.copy() if isinstance(leaf, np.ndarray) else NotImplemented

    return mapped(value, cloned)


def batch_size(value: Any) -> int:
    """The first dimension of its first tensor that has one; 0 without."""
    sizes: list[int] = []

    def note(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dim():
            sizes.append(len(leaf))
        return leaf if isinstance(leaf, Tensor) else NotImplemented

    mapped(value, note)
    return sizes[0] if sizes else 0


def take(value: Any, rows: Sequence[int]) -> Any:
    """These samples of a batch: the rows of every tensor whose first dimension is the batch's."""
    size = batch_size(value)

    def taken(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return NotImplemented
        return leaf[list(rows)].clone() if leaf.dim() and len(leaf) == size else leaf

    return mapped(value, taken)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with every leaf changed; `change` gives NotImplemented for what it leaves alone."""
    if type(value) in (tuple, list):
        return type(value)([mapped(item, change) for item in value])
    changed = change(value)
    if changed is not NotImplemented:
        return changed
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)._make(mapped(item, change) for item in value)  # type: ignore[attr-defined]
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(item, change) for item in value)
    if isinstance(value, Mapping):
        return rebuilt(value, {key: mapped(item, change) for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        other = copy.copy(value)
        for entry in dataclasses.fields(value):
            object.__setattr__(other, entry.name, mapped(getattr(value, entry.name), change))  # frozen ones too
        return other
    return value


def rebuilt(original: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """A mapping of the original's type with these items; a plain dict where its type cannot be made from one."""
    if isinstance(original, dict):
        same = copy.copy(original)  # with its attributes, or its default factory
        same.update(items)
        return same
    try:
        return type(original)(items)  # type: ignore[call-arg]
    except Exception:
        return items
