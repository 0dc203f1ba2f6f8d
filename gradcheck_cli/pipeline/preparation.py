"""What every command that trains begins with: the target, loaded and ready, and how far a run is."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gradcheck_cli import __version__
from gradcheck_cli.config import Settings
from gradcheck_cli.drive import entrypoint
from gradcheck_cli.drive.devices import choose_device, load_checkpoint, seed_everything
from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.records import RunInfo


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps done of `steps`, and the newest loss and gradient norm that are known."""

    done: int
    steps: int
    loss: float
    grad_norm: float


Watcher = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Watch nothing."""


def prepare(target: str, settings: Settings) -> tuple[Workload, torch.device, RunInfo]:
    """Load the target and make it ready to train; also what is about to run."""
    device = choose_device(settings.device)
    checkpoint = Path(settings.checkpoint).absolute() if settings.checkpoint else None  # before a chdir of theirs
    seed_everything(settings.seed)
    function = entrypoint.find(target)
    workload = make_workload(entrypoint.call(function, target, settings.set), settings.optimizer, settings.lr)
    if checkpoint:
        load_checkpoint(workload.model, checkpoint)
    workload.prepare(device, training=not settings.eval)
    described = replace(describe(target, settings, device, workload), location=entrypoint.location_of(function))
    return workload, device, described


def describe(target: str, settings: Settings, device: torch.device, workload: Workload) -> RunInfo:
    """What is about to run."""
    versions = {
        "gradcheck": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
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
        uses_scaler=settings.precision == "fp16",
        notes=workload.notes,
        versions=versions,
        threads=torch.get_num_threads(),
    )
