"""Run a workload under nan-trace's watch, as the pipeline does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradcheck_cli.drive.batches import windows
from gradcheck_cli.drive.loop import LoopSettings, make_scaler, run
from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.observe.nan.births import Births
from gradcheck_cli.observe.nan.sinks import bad_from_the_start
from gradcheck_cli.tape import NanOrigin, NanTrace
from gradcheck_cli.tracing.run import Ending, Hunt
from gradcheck_cli.tracing.session import Session

CPU = torch.device("cpu")
Step = Callable[[nn.Module, Any], Tensor]


def hunt(make: Callable[[], Workload], accumulate: int = 1, **loop: Any) -> tuple[Ending, Session, Hunt]:
    """Make a workload and train it under watch."""
    seed()
    settings = LoopSettings(CPU, **{"steps": 7, **loop})
    births = Births()
    with births.noted():
        workload = make()
    session = Session(workload, settings, make_scaler(settings), bad_from_the_start(workload.model), births)
    hunted = Hunt(session, windows(workload.dataloader, accumulate), lambda *_: None)
    return hunted.run(), session, hunted


def traced(make: Callable[[], Workload], **settings: Any) -> NanTrace:
    """What nan-trace found; the user's code must not have raised."""
    ending, _, _ = hunt(make, **settings)
    assert ending.error is None
    return ending.trace


def train(make: Callable[[], Workload], accumulate: int = 1, **loop: Any) -> tuple[Workload, Any]:
    """The same training without watch: the workload and its scaler."""
    seed()
    settings = LoopSettings(CPU, **{"steps": 7, **loop})
    workload = make()
    scaler = make_scaler(settings)
    for _ in run(workload, windows(workload.dataloader, accumulate), settings, scaler=scaler):
        pass
    return workload, scaler


def seed() -> None:
    torch.manual_seed(0), np.random.seed(0), random.seed(0)


def small(step: Step, batches: Iterable[Any] | None = None, model: nn.Module | None = None) -> Workload:
    """A linear model trained by `step` on a few vectors."""
    model = model or nn.Linear(3, 1)
    parts = {
        "model": model,
        "dataloader": batches or [torch.full((2, 3), float(number + 1)) for number in range(10)],
        "training_step": step,
        "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
    }
    return make_workload(parts)


def code_of(origin: NanOrigin) -> str:
    """The source line that is named."""
    return origin.frame.code if origin.frame else ""
