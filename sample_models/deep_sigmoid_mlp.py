"""Sick: sixteen sigmoid layers with PyTorch's default initialisation; the gradient vanishes on its way to the input.

A sigmoid's slope is at most 1/4, so every layer takes most of a decade off the gradient: the first layers do not
learn, and the loss stays where guessing is (2.3). gradcheck finds GC101, the signal itself being of normal size, and
for the first layers' tiny gradients GC108; the output does not depend on the input either, GC613.

    gradcheck profile sample_models/deep_sigmoid_mlp.py:build
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC101", "GC108", "GC613"})


def build(depth: int = 16, width: int = 64, lr: float = 0.1) -> dict[str, Any]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([64] + [width] * depth):
        layers += [nn.Linear(fan_in, fan_out), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
