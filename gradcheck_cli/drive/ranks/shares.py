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
from torch.utils.data import DataLoader

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

    The loader draws from a stream of its own, so that all ranks shuffle alike whatever else they draw.
    """

    def __init__(self, dataloader: Iterable[Any], place: Place, draws: Draws) -> None:
        self._whole, self._dataloader, self._place = dataloader, alone(dataloader, place), place
        self._is_cut = self._dataloader is not dataloader
        self._draws = draws

    def __iter__(self) -> Iterator[Any]:
        with self._draws.drawn():
            source = iter(self._dataloader)
        own = source if self._is_cut else every(source, self._place)
        seen = False
        while True:
            with self._draws.drawn():
                batch = next(own, self)
            if batch is self:
                break
            seen = True
            yield batch
        if not seen:
            check_enough(self._whole, self._place)


class BatchShare:
    """The same of the indices that a batch sampler gives: what other ranks train on is not even loaded."""

    def __init__(self, batches: Iterable[Any], place: Place) -> None:
        self._batches, self._place = batches, place

    def __iter__(self) -> Iterator[Any]:
        yield from every(iter(self._batches), self._place)

    def __len__(self) -> int:
        return len(self._batches) // self._place.size  # type: ignore[arg-type]


def every(source: Iterator[Any], place: Place) -> Iterator[Any]:
    """One of each `size` items; the last few, too few for all ranks, are left out."""
    while len(together := list(islice(source, place.size))) == place.size:
        yield together[place.rank]


def alone(dataloader: Iterable[Any], place: Place) -> Iterable[Any]:
    """A DataLoader that loads this rank's share only, where it has a batch sampler to share."""
    if type(dataloader) is not DataLoader or dataloader.batch_sampler is None:
        return dataloader
    share = copy.copy(dataloader)
    share.__dict__["batch_sampler"] = BatchShare(dataloader.batch_sampler, place)
    return share


def check_enough(dataloader: Any, place: Place) -> None:
    """Raise TargetError where there are fewer batches than ranks; nothing where there is none at all."""
    if hasattr(dataloader, "__len__") and 0 < len(dataloader) < place.size:
        raise TargetError(
            f"the dataloader has {len(dataloader)} batches for {place.size} ranks", "make the batches smaller"
        )


def share(dataloader: Iterable[Any], group: Group) -> tuple[Iterable[Any], str]:
    """What this rank trains on, and what the report should say of it; all ranks draw the order that rank 0 draws."""
    if splits(dataloader):
        return Epochs(dataloader), ""
    note = f"each rank takes every {ordinal(group.size)} batch: the data loader has no DistributedSampler"
    return Share(dataloader, group.place, Draws(group.gather(read())[0])), note


def ordinal(number: int) -> str:
    """2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def splits(dataloader: Any) -> bool:
    """Whether each rank gets samples of its own from it."""
    return any(hasattr(one, names[0]) and hasattr(one, names[1]) for one in samplers(dataloader) for names in SPLITTERS)


def samplers(dataloader: Any) -> list[Any]:
    """The samplers of a loader, the outer ones first."""
    batch_sampler = getattr(dataloader, "batch_sampler", None)
    found = (getattr(dataloader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
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
