"""The ranks that train a workload together: what they agree on, and how their recordings become one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.batches import Batch
from gradcheck_cli.drive.devices import seed_everything
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.drive.ranks.shares import share
from gradcheck_cli.drive.ranks.strategies import UNSYNCHRONISED, Strategy, distribute
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.observe.peers import ALONE as NO_PEERS
from gradcheck_cli.observe.peers import Peers
from gradcheck_cli.observe.ranks.peers import RankPeers
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.ranks import RankPart, Tensors, merge, side_by_side
from gradcheck_cli.records import Recording

ENDINGS = ("", "data-exhausted", "stable", "stop-above", "nonfinite-loss", "interrupted")
"""Why a run ends, what is more pressing later."""


@dataclass(frozen=True)
class Team:
    """All ranks of a run, and how they synchronise."""

    group: Group = ALONE
    strategy: Strategy = UNSYNCHRONISED

    def peers_of(self, model: nn.Module) -> Peers:
        """What the recorder of this rank must know of the others, which train the same model."""
        if self.group.is_alone:
            return NO_PEERS
        return RankPeers(self.group, self.strategy.degree, self.strategy.modules, model)

    def agree(self, ending: str, recorder: Recorder, source: Ahead, is_last: bool) -> str:
        """Why the run ends with this step on all ranks, or nothing; steps that any rank waits for come over."""
        if self.group.is_alone:
            return ending
        if not ending and not is_last and source.is_over:
            ending = "data-exhausted"
        is_awaited = recorder.is_awaited(perf_counter())
        pressing, awaited = self.group.largest(np.array([ENDINGS.index(ending), is_awaited], dtype=float))
        if awaited:
            recorder.flush()
            # norms may differ where ranks do not synchronise
            (pressing,) = self.group.largest(np.array([max(pressing, ENDINGS.index(recorder.ended))]))
        return ENDINGS[int(pressing)]

    def join(self, recording: Recording, model: nn.Module, peers: Peers) -> Recording:
        """The recording of the whole run, the same on every rank but for what only one rank looks at."""
        if not isinstance(peers, RankPeers):
            return recording
        mine = peers.part(self.strategy.sync_seconds), recording.nonfinite_input
        all_parts: list[tuple[RankPart, str]] = self.group.gather(mine)
        same = peers.compared
        tensors = Tensors(tuple(one.name for one in recording.parameters), same.names, same.buffers)
        parts = merge(*({part.rank: part} for part, _ in all_parts))
        strategy = self.strategy
        ranks = side_by_side(parts, tensors, strategy.name, self.group.backend, strategy.finds_unused)
        places = [f"rank {part.rank}, {where}" for part, where in all_parts if where]
        return replace(recording, ranks=ranks, nonfinite_input=places[0] if places else "")


class Ahead:
    """The windows of a source; whether there is another one can be known before it is asked for."""

    def __init__(self, source: Iterator[list[Batch]]) -> None:
        self._source = source
        self._next: list[list[Batch]] = []

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        return self._next.pop() if self._next else next(self._source)

    @property
    def is_over(self) -> bool:
        """Whether there is none left; loads the next one."""
        self._next = self._next or [window for window in [next(self._source, None)] if window is not None]
        return not self._next


def assemble(workload: Workload, settings: Settings, group: Group, device: torch.device) -> tuple[Workload, Team]:
    """The workload as this rank trains it with the others; alone, as it is.

    From here on each rank draws random numbers of its own: another dropout mask for another batch.
    """
    if group.is_alone:
        return workload, Team()
    trained, strategy = distribute(workload, settings.strategy, device)
    place = strategy.place or group.place
    dataloader, note = share(workload.dataloader, group, place)
    if place.rank:
        seed_everything(settings.seed + place.rank)
    if isinstance(workload.scheduler, ReduceLROnPlateau):
        share_losses(workload.scheduler, group)
    notes = (*workload.notes, *([note] if note else ()))
    return replace(trained, dataloader=dataloader, notes=notes), Team(group, strategy)


def share_losses(scheduler: ReduceLROnPlateau, group: Group) -> None:
    """Let a scheduler that looks at the loss see that of all ranks, on which alone they agree."""
    step = scheduler.step
    scheduler.step = lambda loss, *more: step(float(group.add(np.array([float(loss)]))[0]) / group.size, *more)  # type: ignore[method-assign]
