"""The plain loop under `wandb.watch`, offline."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.models import Run


@contextmanager
def watched(run: Run) -> Iterator[Callable[[], None]]:
    """`run.train` with gradients and parameters of every step going to wandb."""
    import wandb

    os.environ["WANDB_SILENT"] = "true"
    with tempfile.TemporaryDirectory() as folder, wandb.init(mode="offline", dir=folder, project="benchmark") as logged:
        logged.watch(run.model, log="all", log_freq=1)

        def train() -> None:
            for _, batch in zip(range(run.steps), run.endless(), strict=False):
                run.train_step(batch)
                logged.log({})

        yield train
