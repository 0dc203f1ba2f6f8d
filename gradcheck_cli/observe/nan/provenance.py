"""Which operation wrote which element: for each storage, and only where something is not finite element by element."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from gradcheck_cli.observe.nan.states import elements

OUTSIDE = -1


@dataclass
class Entry:
    """What is known of a storage. `ref` keeps its identity from being used again, not its memory.

    `owners` gives the writer of each bad element, one for all or one for each; of finite ones it says nothing.
    `generation` counts the writes.
    """

    ref: StorageWeakRef
    writer: int = OUTSIDE
    owners: int | Tensor = OUTSIDE
    generation: int = 0


class Provenance:
    """The writers of all storages that the operations of a step touched."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}

    def entry(self, tensor: Tensor) -> Entry:
        """What is known of the tensor's storage."""
        storage = elements(tensor).untyped_storage()
        entry = self._entries.get(storage._cdata)
        if entry is None:
            entry = self._entries[storage._cdata] = Entry(StorageWeakRef(storage))  # type: ignore[no-untyped-call]
        return entry

    def producer(self, tensor: Tensor) -> int:
        """The operation that wrote to it last, or OUTSIDE."""
        return self.entry(tensor).writer

    def note_write(self, tensor: Tensor, operation: int, bad: Tensor | None) -> None:
        """`operation` wrote the whole tensor, which may be a part of its storage; `bad` marks its bad elements."""
        entry = self.entry(tensor)
        entry.writer = operation
        entry.generation += 1
        if bad is None:
            return
        values = elements(tensor)
        size = values.untyped_storage().nbytes() // values.element_size()
        if values.numel() == size:
            entry.owners = operation
            return
        if isinstance(entry.owners, int) or len(entry.owners) != size:
            entry.owners = torch.full((size,), entry.owners if isinstance(entry.owners, int) else entry.writer)
        self._view(entry.owners, values)[bad.cpu()] = operation

    def owners(self, tensor: Tensor) -> Tensor:
        """The writer of each of its elements (int64, on the CPU); means something for bad ones only."""
        entry, values = self.entry(tensor), elements(tensor)
        if isinstance(entry.owners, int):
            return torch.full((), entry.owners).expand(values.shape)
        if len(entry.owners) * values.element_size() != values.untyped_storage().nbytes():
            return torch.full((), entry.writer).expand(values.shape)  # seen through another dtype
        return self._view(entry.owners, values).clone()

    def _view(self, owners: Tensor, values: Tensor) -> Tensor:
        return owners.as_strided(values.shape, values.stride(), values.storage_offset())
