"""Batches from the user's dataloader, as many as are needed, on the device."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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


def windows(dataloader: Iterable[Any], length: int) -> Generator[list[Batch], None, None]:
    """Batches in windows of `length` for gradient accumulation, epoch after epoch; an epoch's last may be shorter.

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
                yield window
                window = []
        if window:
            yield window
        if not seen and not epoch:
            raise TargetError("the dataloader is empty", "it yielded no batch: check the dataset and drop_last")
        if not seen:
            return
        epoch += 1


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
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if callable(getattr(value, "to", None)):
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)._make(move(item, device) for item in value)  # type: ignore[attr-defined]
    if isinstance(value, (tuple, list)):
        return type(value)(move(item, device) for item in value)
    if isinstance(value, Mapping):
        return rebuilt(value, {key: move(item, device) for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        moved = copy.copy(value)
        for entry in dataclasses.fields(value):
            object.__setattr__(moved, entry.name, move(getattr(value, entry.name), device))  # frozen ones too
        return moved
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
