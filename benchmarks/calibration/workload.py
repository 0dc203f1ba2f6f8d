"""A sample model under an optimizer, a learning rate and a schedule: what the calibration trains."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "sample_models"))

WARMUP = 100
SMALLER: dict[str, dict[str, int]] = {
    "digits_cnn": {"channels": 8, "depth": 2},
    "char_gpt": {"width": 32, "depth": 2},
    "vit_digits": {"depth": 2},
}


def build(model: str, optimizer: str, lr: float, schedule: str = "constant", steps: int = 2000) -> dict[str, Any]:
    """The sample `model`'s entrypoint, trained as said; `schedule` is constant or cosine (after a linear warm-up)."""
    workload: dict[str, Any] = importlib.import_module(model).build(**SMALLER.get(model, {}))
    workload.pop("scheduler", None)
    parameters = list(workload["model"].parameters())
    kinds = {
        "sgd": lambda: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
        "adam": lambda: torch.optim.Adam(parameters, lr=lr),
        "adamw": lambda: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1),
    }
    workload["optimizer"] = kinds[optimizer]()
    if schedule == "cosine":
        workload["scheduler"] = torch.optim.lr_scheduler.LambdaLR(
            workload["optimizer"], lambda step: share_of_rate(step, steps)
        )
    return workload


def share_of_rate(step: int, steps: int) -> float:
    """Linear from 0 over WARMUP steps, then a half cosine down to a tenth at `steps`."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))
