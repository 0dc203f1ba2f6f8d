"""Sick data, healthy model: two batches hold pixels from 0 to 255 that somebody forgot to normalise.

The batches come in a fixed order; batch 30 and batch 42 (counted from 0) are the outliers. gradcheck finds a gradient
spike (GC201) and a loss spike (GC202) at just these steps, and for the size of the gradients GC107.

    gradcheck profile sample_models/outlier_batches.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC107", "GC201", "GC202"})
OUTLIERS = (30, 42)
BATCH_SIZE = 32


def build(width: int = 64, scale: float = 255.0, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = digits()
    for batch in OUTLIERS:
        pixels[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE] *= scale
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(pixels, labels, BATCH_SIZE, shuffle=False),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
