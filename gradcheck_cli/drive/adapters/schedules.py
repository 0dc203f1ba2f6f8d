"""Learning-rate schedules as Lightning steps them: after some batches of an epoch, or after some epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau


@dataclass(frozen=True)
class Schedule:
    """A scheduler with Lightning's configuration of it."""

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1

    @classmethod
    def of(cls, configured: Any) -> Schedule:
        """From a scheduler, or from Lightning's dictionary of one."""
        if not isinstance(configured, Mapping):
            return cls(configured)
        return cls(configured["scheduler"], configured.get("interval", "epoch"), configured.get("frequency", 1))

    @property
    def needs_metric(self) -> bool:
        """Whether it follows a metric, which only a Trainer has."""
        return isinstance(self.scheduler, ReduceLROnPlateau)


class Schedules:
    """`step` follows each optimizer step, `epochs` each pass over the data.

    `place` says how many batches of the epoch are done. A schedule that nobody steps because another optimizer is in
    use stays where it is in `epochs`, too.
    """

    def __init__(self, schedules: Iterable[Schedule], place: Place) -> None:
        self._schedules = tuple(schedules)
        self._place = place
        self._in_use = False

    def step(self) -> None:
        """After an optimizer step: advance what goes by batches."""
        self._in_use = True
        self._advance("step", self._place.batches)

    def epochs(self, loader: Iterable[Any]) -> EpochLoader:
        """The same batches; as the next epoch begins, so after its last step, what goes by epochs is advanced."""
        return EpochLoader(loader, self, self._place)

    def end_epoch(self, epochs: int) -> None:
        """After so many epochs: advance what goes by epochs."""
        if self._in_use:
            self._advance("epoch", epochs)

    def _advance(self, interval: str, done: int) -> None:
        for one in self._schedules:
            if one.interval == interval and done % one.frequency == 0:
                one.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of all, for a step that is run again."""
        return {"schedules": [one.scheduler.state_dict() for one in self._schedules]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the states back."""
        for one, kept in zip(self._schedules, state["schedules"], strict=True):
            one.scheduler.load_state_dict(kept)


class Place:
    """How many batches of the epoch a module has trained on.

    The number is an attribute of the module: there it goes back with everything else when a step is run again.
    """

    NAME = "_gradcheck_batches"

    def __init__(self, module: Any) -> None:
        self._attributes = vars(module)
        self.batches = 0

    @property
    def batches(self) -> int:
        return int(self._attributes[self.NAME])

    @batches.setter
    def batches(self, number: int) -> None:
        self._attributes[self.NAME] = number


class EpochLoader:
    """A loader that tells schedules of each new epoch, and counts batches from 0 in it."""

    def __init__(self, loader: Iterable[Any], schedules: Schedules, place: Place) -> None:
        self._loader, self._schedules, self._place = loader, schedules, place
        self._epochs = 0

    def __iter__(self) -> Iterator[Any]:
        if self._epochs:
            self._schedules.end_epoch(self._epochs)
        self._epochs += 1
        self._place.batches = 0
        return iter(self._loader)
