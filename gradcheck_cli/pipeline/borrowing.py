"""Train what belongs to somebody who goes on with it: afterwards all of it is as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.observe.nan.snapshot import Snapshot
from gradcheck_cli.pipeline.preparation import Built

Switch = tuple[Callable[[], Any], Callable[[Any], object]]
SWITCHES: tuple[Switch, ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (os.getcwd, os.chdir),
)
"""What a target may set for the whole process, and how it is read."""


@contextmanager
def borrowed(parts: Any, settings: Settings) -> Iterator[Built]:
    """What an entrypoint may return, as a target; its settings of optimizer and lr are followed here.

    Weights, gradients, buffers, modes, the optimizer, the scheduler, the data loader's generators and random states
    are put back at the end, bit by bit. What an iterator has given is gone. Raises TargetError as `make_workload` does.
    """
    with same_process():
        workload = make_workload(parts, settings.optimizer, settings.lr)
        modules = [part for part in (workload.model, workload.loss_fn) if isinstance(part, nn.Module)]
        schedulers = [] if workload.scheduler is None else [workload.scheduler]
        snapshot = Snapshot(modules, [workload.optimizer], schedulers, GradScaler(enabled=False))
        generators = [(one, one.get_state()) for one in generators_of(workload)]
        try:
            yield Built(type(workload.model).__name__, workload)
        finally:
            snapshot.restore()
            for generator, state in generators:
                generator.set_state(state)


def generators_of(workload: Workload) -> list[torch.Generator]:
    """The random generators that a DataLoader was given."""
    loader = workload.dataloader
    found = [getattr(owner, "generator", None) for owner in (loader, getattr(loader, "sampler", None))]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


@contextmanager
def same_process(folder: Path | None = None) -> Iterator[None]:
    """Random states, torch's settings, the working directory and what imports look at are put back at the end.

    Within, the working directory is `folder`, if one is given.
    """
    random, path, arguments = RandomState(), list(sys.path), list(sys.argv)
    with ExitStack() as stack:
        for read, write in SWITCHES:
            stack.callback(write, read())
        if folder is not None:
            os.chdir(folder)
        try:
            yield
        finally:
            sys.path[:], sys.argv[:] = path, arguments
            random.restore()
