"""Sick: pixels made whole numbers after they were scaled to 0..1, so that every picture is blank.

The loss falls a little, to that of guessing the most frequent digits, because the biases learn. gradcheck finds that
the output does not depend on the input, GC613, and the first layer's gradients of exactly zero, GC104.

    gradcheck profile sample_models/blank_input.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, raw_digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC104", "GC613"})


def build(width: int = 64, lr: float = 0.1) -> dict[str, Any]:
    pixels, labels = raw_digits()
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches((pixels / 17).to(torch.uint8).float(), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
