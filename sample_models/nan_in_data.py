"""Sick data, healthy model: a single pixel of one batch is NaN, and turns loss, gradients and weights into NaN.

The batches come in a fixed order; the NaN is in batch 24 (counted from 0), sample 3, pixel 20. gradcheck finds the
input (GC304), the loss (GC301), the gradients (GC302) and, after that step's update, the weights (GC303); the run ends
there.

    gradcheck profile sample_models/nan_in_data.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC301", "GC302", "GC303", "GC304"})
NAN_BATCH, NAN_SAMPLE, NAN_PIXEL = 24, 3, 20
BATCH_SIZE = 32


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = digits()
    pixels[NAN_BATCH * BATCH_SIZE + NAN_SAMPLE, NAN_PIXEL] = float("nan")
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(pixels, labels, BATCH_SIZE, shuffle=False),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
