"""Sick: the second layer's ReLUs are dead: its biases start so far below zero that no input reaches the slope.

Everything up to there gets gradients, and all of them are exactly zero; only the last bias learns. gradcheck finds
GC603, GC104 because of it, and GC613 because no output depends on its input.

    gradcheck profile sample_models/dead_relu.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC104", "GC603", "GC613"})


def build(width: int = 64, bias: float = -20.0, lr: float = 1e-3) -> dict[str, Any]:
    dead = nn.Linear(width, width)
    nn.init.constant_(dead.bias, bias)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), dead, nn.ReLU(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
