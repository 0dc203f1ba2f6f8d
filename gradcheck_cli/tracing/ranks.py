"""One hunt on several ranks: they look and replay together, and one of them says where it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.drive.ranks.group import ALONE as NO_OTHERS
from gradcheck_cli.drive.ranks.group import Group
from gradcheck_cli.drive.ranks.strategies import UNSYNCHRONISED, Strategy
from gradcheck_cli.observe.hooks import patched
from gradcheck_cli.observe.nan.held import HeldStep
from gradcheck_cli.observe.nan.snapshot import Snapshot
from gradcheck_cli.tape import NanTrace, Tape

SUSPICIONS = ("", "norm", "gradient", "state", "loss")

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The ranks of a hunt; alone, all of it is what this process says."""

    group: Group = NO_OTHERS
    strategy: Strategy = UNSYNCHRONISED

    @property
    def is_local(self) -> bool:
        """Whether what a rank does between two synchronisations of gradients needs no other rank."""
        modules = self.strategy.modules
        if self.strategy.name == "none":
            return True
        return bool(modules) and all(isinstance(module, DistributedDataParallel) for module in modules)

    @property
    def splits_tensors(self) -> bool:
        """Whether ranks share the work on one batch: a value then comes from others within a forward pass."""
        return self.strategy.name != "none" and self.strategy.degree < self.group.size

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, set where it is on any rank."""
        return tuple(bool(flag) for flag in self.group.largest(np.array(flags, dtype=float)))

    def worst(self, suspicion: str) -> str:
        """The most certain suspicion of any rank."""
        return SUSPICIONS[int(self.group.largest(np.array([SUSPICIONS.index(suspicion)], dtype=float))[0])]

    def most(self, number: int) -> int:
        """The largest number of any rank."""
        return int(self.group.largest(np.array([float(number)]))[0])

    def those_with(self, flag: bool) -> tuple[int, ...]:
        """The ranks whose flag is set."""
        return tuple(rank for rank, one in enumerate(self.group.gather(flag)) if one)


ALONE = Ranks()


@contextmanager
def unsynchronised() -> Iterator[None]:
    """Let modules in DDP run as they would without it: a rank's step is then its own affair."""

    def plainly(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda module, *args, **kwargs: module.module(*args, **kwargs)

    with patched(DistributedDataParallel, "forward", plainly):
        yield


class Lead:
    """Replays of one rank that the others follow: each waits to be told, and runs the same step with it.

    A replay of fewer micro-batches is one of the others, too.
    """

    def __init__(self, group: Group, leader: int) -> None:
        self._group, self._leader = group, leader

    @property
    def is_mine(self) -> bool:
        """Whether this rank leads."""
        return self._group.rank == self._leader

    def announce(self, step: HeldStep) -> None:
        """The leader is about to run a step of so many micro-batches."""
        self._tell(len(step.batches))

    def end(self) -> None:
        """The leader has run its last."""
        self._tell(0)

    def follow(self, step: HeldStep, before: Snapshot, run_again: Callable[[HeldStep], None]) -> None:
        """Run the step as often as the leader does, from the state `before` it."""
        while length := self._tell(0):
            before.restore()
            run_again(HeldStep(step.number, step.batches[:length]))

    def _tell(self, length: int) -> int:
        return int(self._group.largest(np.array([float(length)]))[0])


def together(source: Iterator[T], group: Group) -> Iterator[T]:
    """The items of a source for as long as every rank has another one."""
    while True:
        item = next(source, None)
        if group.largest(np.array([float(item is None)]))[0] or item is None:
            return
        yield item


def find_guilty(tape: Tape, ranks: Ranks) -> tuple[int, ...]:
    """The ranks on which something went wrong first: in their own loss or gradients, else in what an update left."""
    own = any(sink.what in ("loss", "gradient", "error") for sink in tape.sinks)
    return ranks.those_with(own) or ranks.those_with(bool(tape.sinks))


def on_ranks(found: NanTrace, guilty: Sequence[int]) -> NanTrace:
    """A trace that says on which rank it was made; the same fault may have begun on others, too."""
    first, *others = guilty
    told = (f"it begins on ranks {', '.join(map(str, guilty))}: this is what rank {first} saw",) if others else ()
    return replace(found, rank=first, notes=(*found.notes, *told))
