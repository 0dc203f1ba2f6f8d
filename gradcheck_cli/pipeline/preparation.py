"""What every command that trains begins with: the target, loaded and ready, and how far a run is."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradcheck_cli import __version__
from gradcheck_cli.config import Settings
from gradcheck_cli.drive import entrypoint
from gradcheck_cli.drive.devices import choose_device, load_checkpoint, seed_everything
from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.observe.nan.randomness import RandomState
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
class Start:
    """What a run begins with, and can begin with again: the imported callable and the state that its import left."""

    target: str
    function: Callable[..., Any]
    device: torch.device
    checkpoint: Path | None
    random: RandomState
    folder: Path


def prepare(target: str, settings: Settings) -> tuple[Workload, torch.device, RunInfo]:
    """Load the target and make it ready to train; also what is about to run."""
    return begin(load(target, settings), settings)


def load(target: str, settings: Settings) -> Start:
    """Import the target."""
    device = choose_device(settings.device)
    checkpoint = Path(settings.checkpoint).absolute() if settings.checkpoint else None  # before a chdir of theirs
    seed_everything(settings.seed)
    function = entrypoint.find(target)
    return Start(target, function, device, checkpoint, RandomState(), Path.cwd())


def begin(start: Start, settings: Settings) -> tuple[Workload, torch.device, RunInfo]:
    """Call the target and make what it returns ready to train, as often as one likes from the same start."""
    seed_everything(settings.seed)  # also the generators that a RandomState does not hold
    start.random.restore()
    os.chdir(start.folder)
    workload = make_workload(
        entrypoint.call(start.function, start.target, settings.set), settings.optimizer, settings.lr
    )
    if start.checkpoint:
        load_checkpoint(workload.model, start.checkpoint)
    workload.prepare(start.device, training=not settings.eval)
    location = entrypoint.location_of(start.function)
    return workload, start.device, replace(describe(start.target, settings, start.device, workload), location=location)


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
