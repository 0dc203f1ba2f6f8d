"""Training again from the same start: what is the same, what is compared, and what a failure leaves."""

from __future__ import annotations

import random
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from gradcheck_cli.clip_advice import ClipAdvice, ClipSettings, VerifiedRun
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.advice import advise
from gradcheck_cli.diagnose.clip.adaptive import ZClip
from gradcheck_cli.pipeline.preparation import Start, begin, ignore, load
from gradcheck_cli.pipeline.profiling import watch_training
from gradcheck_cli.pipeline.verification import verify
from gradcheck_cli.records import Recording

Runs = tuple[dict[str, VerifiedRun], tuple[str, ...]]
STEPS = 60

NOISY = """
    import random, numpy, torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    x = torch.randn(64, 3) + random.random() + numpy.random.rand()  # drawn when the file is imported

    def build():
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20)
        return {"model": model, "dataloader": data, "loss_fn": nn.MSELoss(), "optimizer": optimizer,
                "scheduler": scheduler}
"""


class Verification:
    """An entrypoint that was trained once, and is trained again."""

    def __init__(self, source: str, **settings: Any) -> None:
        Path("train.py").write_text(textwrap.dedent(source))
        self.settings = Settings(**{"steps": STEPS, "verify": True, **settings})
        self.start: Start = load("train.py:build", self.settings)
        self.unclipped: Recording = self.train()
        self.advice: ClipAdvice = advise(self.unclipped, ClipSettings())

    def train(self, **settings: Any) -> Recording:
        changed = Settings(steps=STEPS, **settings)
        return watch_training(*begin(self.start, changed)[:2], changed, begin(self.start, changed)[2], ignore).recording

    def verify(self, watch: Callable[..., None] = ignore) -> Runs:
        runs, notes = verify(self.start, self.settings, self.unclipped, self.advice, watch)
        return {run.name: run for run in runs}, notes
