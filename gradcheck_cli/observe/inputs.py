"""Look at batches on their way to the model: which one it is, and whether it holds NaN or Inf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.native.library import read
from gradcheck_cli.observe.transfer import Value


class NumberedBatch(Protocol):
    """A batch and its place: `index` within its `epoch`, both from 0."""

    @property
    def index(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def data(self) -> Any: ...


B = TypeVar("B", bound=NumberedBatch)


class Inputs:
    """Notes the batches of the current step; `move_to` hands the notes to the step's draft."""

    def __init__(self) -> None:
        self._first: NumberedBatch | None = None
        self._nonfinite: list[Value] = []
        self._where = ""
        self._examples = 0

    def inspect(self, batches: Iterable[B]) -> Iterator[B]:
        """The same batches, each looked at when it is taken."""
        for batch in batches:
            self.look(batch, "batch")
            yield batch

    def look(self, batch: NumberedBatch, name: str) -> None:
        """Look at one; `name` is what its data are called."""
        self._first = self._first or batch
        self._examples += count_examples(batch.data)
        if are_finite(batch.data):  # names are for what is not
            return
        for path, tensor in floating_tensors(batch.data, name):
            self._look_at(path, tensor, batch.index)

    def move_to(self, draft: Draft) -> None:
        """Write down the notes since the last step, and begin anew."""
        if self._first is not None:
            draft.batch, draft.epoch = self._first.index, self._first.epoch
        draft.nonfinite_input, draft.examples = self._where, self._examples
        for number, count in enumerate(self._nonfinite):
            draft.values[f"input.{number}"] = count
        self._first, self._nonfinite, self._where, self._examples = None, [], "", 0

    def _look_at(self, path: str, tensor: Tensor, index: int) -> None:
        if not tensor.is_cpu:
            self._nonfinite.append((~torch.isfinite(tensor)).sum())
        elif tensor.numel() and not is_finite(tensor):
            bad = ~torch.isfinite(tensor)
            first = torch.nonzero(bad)[0].tolist()
            value = tensor[tuple(first)].item()
            self._nonfinite.append(float(bad.sum()))
            self._where = self._where or (
                (f"batch {index}: " if index >= 0 else "")
                + f"{int(bad.sum())} of {bad.numel()} elements of {path}, the first {value} at {first}"
            )


def count_examples(value: Any) -> int:
    """How many a batch holds: the length of the first tensor in it that has one, 0 without any."""
    if isinstance(value, Tensor):
        return value.shape[0] if value.dim() else 0
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return next((number for member in members if (number := count_examples(member))), 0)


def are_finite(value: Any) -> bool:
    """Whether a batch is seen at once to be nothing but tensors on the CPU, and finite."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return True
        sums = read(value)
        return sums is not None and isfinite(sums[2])
    return isinstance(value, (tuple, list)) and all(map(are_finite, value))


def is_finite(tensor: Tensor) -> bool:
    """Whether all elements of a tensor on the CPU are."""
    sums = read(tensor)
    return all(map(torch.isfinite, torch.aminmax(tensor.detach()))) if sums is None else isfinite(sums[2])


def floating_tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Real floating-point tensors in a nested batch, each with the expression that reaches it."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.layout is torch.strided:
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from floating_tensors(item, f"{path}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for number, item in enumerate(value):
            yield from floating_tensors(item, f"{path}[{number}]")
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from floating_tensors(getattr(value, entry.name), f"{path}.{entry.name}")
