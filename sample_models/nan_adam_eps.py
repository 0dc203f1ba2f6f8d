"""Sick: Adam with eps 0 on digits, where three pixels at the border are 0 in every picture.

The weights of those pixels get a gradient of exactly 0, and without eps the update divides 0 by 0. Loss and gradients
of the first step are finite, the weights after it are not: gradcheck profile finds them (GC303) in the next step, with
the loss (GC301) and the gradients (GC302) that they lead to. gradcheck nan-trace must find: step 0, optimizer,
aten::addcdiv_ (or aten::_foreach_addcdiv_), the line that makes the optimizer, because numerator and denominator are
both 0.

    gradcheck nan-trace sample_models/nan_adam_eps.py:build
    gradcheck profile sample_models/nan_adam_eps.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, raw_digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC301", "GC302", "GC303"})


def build(width: int = 64, lr: float = 1e-3, eps: float = 0.0) -> dict[str, Any]:
    pixels, labels = raw_digits()
    model = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(pixels / 16, labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr, eps=eps),
    }
