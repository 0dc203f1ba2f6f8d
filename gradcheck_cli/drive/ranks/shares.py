"""Which batches a rank trains on."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from gradcheck_cli.drive.ranks.group import Group, Place
from gradcheck_cli.errors import TargetError

SPLITTERS = (("num_replicas", "rank"), ("num_processes", "process_index"))
"""What a sampler that gives each rank its own samples has: torch's and transformers', accelerate's."""


class Draws:
    """A stream of random numbers of its own, from the states of torch's, NumPy's and Python's global generators on."""

    def __init__(self, state: tuple[Any, Any, Any]) -> None:
        self._state = state

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw from this stream for the length of the context, and leave the others where they were."""
        outside = read()
        write(self._state)
        try:
            yield
        finally:
            self._state = read()
            write(outside)


def read() -> tuple[Any, Any, Any]:
    """The states of the global generators."""
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def write(state: tuple[Any, Any, Any]) -> None:
    """Put them back."""
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


class Share:
    """Every `size`-th batch of a data loader, from the `rank`-th on, as many on each rank.

    The order of the batches is drawn from a stream of its own, so that all ranks shuffle alike whatever else they draw.
    """

    def __init__(self, dataloader: Iterable[Any], place: Place, draws: Draws) -> None:
        self._dataloader, self._place, self._draws = cut(dataloader, place, draws), place, draws
        self._is_cut = self._dataloader is not dataloader

    def __iter__(self) -> Iterator[Any]:
        if self._is_cut:  # what remains to be drawn are augmentations, other ones on each rank
            with self._draws.drawn():
                torch.empty((), dtype=torch.int64).random_()  # as a loader does for its workers
            yield from self._dataloader
            return
        with self._draws.drawn():
            source = iter(self._dataloader)
        yield from every(drawing(source, self._draws), self._place)


class BatchShare:
    """The same of the indices that a batch sampler gives: what other ranks train on is not even loaded."""

    def __init__(self, batches: Iterable[Any], place: Place, draws: Draws) -> None:
        self._batches, self._place, self._draws = batches, place, draws

    def __iter__(self) -> Iterator[Any]:
        yield from every(drawing(iter(self._batches), self._draws), self._place)

    def __len__(self) -> int:
        return len(self._batches) // self._place.size  # type: ignore[arg-type]


def drawing(source: Iterator[Any], draws: Draws) -> Iterator[Any]:
    """The same items, which draw their random numbers from that stream."""
    nothing = object()
    while True:
        with draws.drawn():
            item = next(source, nothing)
        if item is nothing:
            return
        yield item


def every(source: Iterator[Any], place: Place) -> Iterator[Any]:
    """One of each `size` items; the last few, too few for all ranks, are left out.

    Raises TargetError where there are no others.
    """
    together = list(islice(source, place.size))
    if 0 < len(together) < place.size:
        have = f"{len(together)} batch" + ("es" if len(together) > 1 else "")
        raise TargetError(f"the dataloader has {have} for {place.size} ranks", "make the batches smaller")
    while len(together) == place.size:
        yield together[place.rank]
        together = list(islice(source, place.size))


def cut(dataloader: Iterable[Any], place: Place, draws: Draws) -> Iterable[Any]:
    """A DataLoader that loads this rank's share only, where it has a batch sampler to share; others as they are.

    That of an IterableDataset says how many samples make a batch, not which ones.
    """
    if type(dataloader) is not DataLoader or isinstance(dataloader.dataset, IterableDataset):
        return dataloader
    if dataloader.batch_sampler is None:
        return dataloader
    share = copy.copy(dataloader)
    share.__dict__["batch_sampler"] = BatchShare(dataloader.batch_sampler, place, draws)
    return share


def share(dataloader: Iterable[Any], group: Group, place: Place) -> tuple[Iterable[Any], str]:
    """What this rank trains on, and what the report should say of it; all ranks draw the order that rank 0 draws.

    `place` is that among ranks that train on different batches: those that split a tensor share one.
    """
    stream = Draws(group.gather(read())[0])
    if splits(dataloader):
        return Epochs(dataloader), ""
    note = f"each rank takes every {ordinal(place.size)} batch: the data loader has no DistributedSampler"
    if place.size < group.size:
        what = f"every {ordinal(place.size)} batch" if place.size > 1 else "every batch"
        note = f"the {group.size // place.size} ranks that split tensors take {what} together"
    return Share(dataloader, place, stream), note


def ordinal(number: int) -> str:
    """2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def splits(dataloader: Any) -> bool:
    """Whether each rank gets samples of its own from it."""
    return any(hasattr(one, names[0]) and hasattr(one, names[1]) for one in samplers(dataloader) for names in SPLITTERS)


def samplers(dataloader: Any) -> list[Any]:
    """What decides on a loader's samples, the outer ones first: transformers and accelerate wrap iterable datasets."""
    batch_sampler = getattr(dataloader, "batch_sampler", None)
    inner = (getattr(batch_sampler, "sampler", None), getattr(batch_sampler, "batch_sampler", None))
    found = (getattr(dataloader, "sampler", None), batch_sampler, *inner, getattr(dataloader, "dataset", None))
    return [one for one in found if one is not None]


class Epochs:
    """A loader whose sampler is told of each epoch, as it must be to shuffle anew."""

    def __init__(self, dataloader: Iterable[Any]) -> None:
        self._dataloader, self._epoch = dataloader, 0

    def __iter__(self) -> Iterator[Any]:
        for sampler in samplers(self._dataloader):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self._epoch)
        self._epoch += 1
        yield from self._dataloader
