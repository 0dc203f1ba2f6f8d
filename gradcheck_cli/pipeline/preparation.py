"""What every command that trains begins with: the target, loaded and ready, and how far a run is."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gradcheck_cli import __version__
from gradcheck_cli.config import Settings
from gradcheck_cli.config_flags import as_flag
from gradcheck_cli.drive import entrypoint
from gradcheck_cli.drive.devices import choose_device, load_checkpoint, seed_everything
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.pipeline.team import Team, assemble
from gradcheck_cli.records import RunInfo


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps done of `steps` (None: nobody knows), newest known loss and norm, what else to show."""

    done: int
    steps: int | None
    loss: float
    grad_norm: float
    text: str = ""


Watcher = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class Built:
    """A target in memory already; `name` is what the report calls it."""

    name: str
    workload: Workload


@dataclass(frozen=True)
class Start:
    """What a run begins with, and can begin with again: the imported callable and the state that its import left."""

    target: str
    function: Callable[..., Any]
    device: torch.device
    checkpoint: Path | None
    random: RandomState
    folder: Path
    group: Group = ALONE


class Ready(NamedTuple):
    """What can be trained now, where, what is about to run, and how: with the settings of its Trainer if it has one."""

    workload: Workload
    device: torch.device
    described: RunInfo
    settings: Settings
    team: Team = Team()


def prepare(target: str | Built, settings: Settings, group: Group = ALONE) -> Ready:
    """Load the target and make it ready to train."""
    return begin(load(target, settings, group), settings)


def load(target: str | Built, settings: Settings, group: Group = ALONE) -> Start:
    """Import the target; what is built already can be trained once only."""
    device = choose_device(settings.device, None if group.is_alone else group.place.local_rank)
    checkpoint = Path(settings.checkpoint).absolute() if settings.checkpoint else None  # before a chdir of theirs
    seed_everything(settings.seed)
    if isinstance(target, Built):
        return Start(target.name, partial(getattr, target, "workload"), device, checkpoint, RandomState(), Path.cwd())
    return Start(target, entrypoint.find(target), device, checkpoint, RandomState(), Path.cwd(), group)


def begin(start: Start, settings: Settings, clip: str = "clip") -> Ready:
    """Call the target and make what it returns ready to train, as often as one likes from the same start.

    `clip` is the name of the setting that its Trainer's clipping becomes.
    """
    seed_everything(settings.seed)  # also the generators that a RandomState does not hold
    start.random.restore()
    os.chdir(start.folder)
    returned = entrypoint.call(start.function, start.target, settings.set)
    built = isinstance(returned, Workload)
    workload = returned if built else make_workload(returned, settings.optimizer, settings.lr)
    if start.checkpoint:
        load_checkpoint(workload.model, start.checkpoint)
    workload.prepare(start.device, training=not settings.eval)
    trainer = {clip if name == "clip" else name: value for name, value in workload.trainer.items()}
    settings, notes = adopt(trainer, settings)
    workload, team = assemble(workload, settings, start.group, start.device)
    workload = replace(workload, notes=(*notes, *workload.notes))
    location = entrypoint.location_of(start.function)
    described = replace(describe(start.target, settings, start.device, workload), location=location)
    return Ready(workload, start.device, described, settings, team)


def adopt(trainer: Mapping[str, Any], settings: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The settings with those of a Trainer where the user chose none, and what the report should say of both."""
    taken = {name: value for name, value in trainer.items() if name not in settings.given}
    news = [option(name, value) for name, value in taken.items() if value != getattr(settings, name)]
    adopted = replace(settings, **taken, given=settings.given | taken.keys())
    others = {name: value for name, value in trainer.items() if value != getattr(adopted, name)}
    wins = [f"{option(name, getattr(settings, name))} (it has {plain(value)})" for name, value in others.items()]
    taken_note = (f"as the Trainer is set: {' '.join(news)}",) if news else ()
    return adopted, (*taken_note, *([f"in place of the Trainer's own: {', '.join(wins)}"] if wins else []))


def option(name: str, value: Any) -> str:
    """As it would be typed."""
    flag = as_flag(name)
    return f"no {flag}" if value is None else f"{flag} {plain(value)}"


def plain(value: Any) -> str:
    """A value in a note."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def describe(target: str, settings: Settings, device: torch.device, workload: Workload) -> RunInfo:
    """What is about to run."""
    return RunInfo(
        target=target,
        device=str(device),
        precision=settings.precision,
        seed=settings.seed,
        accumulate=settings.accumulate,
        max_norm=settings.clip,
        steps_requested=settings.steps,
        training=not settings.eval,
        has_optimizer=workload.has_optimizer,
        optimizer=type(workload.optimizer).__name__ if workload.has_optimizer else "",
        checkpoint=settings.checkpoint or "",
        uses_scaler=settings.precision == "fp16",
        notes=workload.notes,
        versions=versions(),
        threads=torch.get_num_threads(),
    )


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {
        "gradcheck": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
