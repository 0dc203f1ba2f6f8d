"""Which batch of its data loader a tensor belongs to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.data import dataloader

from gradcheck_cli.observe.hooks import patched

LATEST = 8


@dataclass(frozen=True)
class Delivery:
    """A batch that a model was called with: `index` within its `epoch`, -1 where that is not known."""

    index: int
    epoch: int
    data: Any


class Deliveries:
    """Notes what data loaders deliver; a loader's epochs are counted from 0."""

    def __init__(self) -> None:
        self._latest: deque[tuple[int, int, frozenset[StorageWeakRef]]] = deque(maxlen=LATEST)
        self._epochs: dict[int, int] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Every batch from every `torch.utils.data.DataLoader`."""
        with patched(dataloader._BaseDataLoaderIter, "__next__", self._watch_next):
            yield

    def find(self, data: Any) -> Delivery:
        """Which of the latest batches the model's input is, or is a view of: by the memory of their tensors."""
        memory = storages(data) if self._latest else set()
        for index, epoch, known in reversed(self._latest):
            if memory & known:
                return Delivery(index, epoch, data)
        return Delivery(-1, 0, data)

    def _watch_next(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def deliver(loader: Any) -> Any:
            batch = call(loader)
            index, dataset = loader._num_yielded - 1, id(loader._dataset)
            if index == 0:
                self._epochs[dataset] = self._epochs.get(dataset, -1) + 1
            self._latest.append((index, self._epochs.get(dataset, 0), frozenset(storages(batch))))
            return batch

        return deliver


def storages(value: Any) -> set[StorageWeakRef]:
    """What holds the memory of the tensors in a nested batch; an address would be another tensor's some day."""
    if isinstance(value, Tensor):
        try:
            return {StorageWeakRef(value.untyped_storage())}  # type: ignore[no-untyped-call]
        except (RuntimeError, NotImplementedError):  # a tensor without memory of its own
            return set()
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return set().union(*map(storages, members))
