"""Sick: a learning rate in the wrong place after the decimal point: the weights stand still.

Gradients are healthy at every layer, and the loss never falls. gradcheck finds GC609: no weight moves by more than some
billionths of its size.

    gradcheck profile sample_models/tiny_lr.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC609"})


def build(width: int = 64, lr: float = 1e-8) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
