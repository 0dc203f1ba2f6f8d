"""Sick: ten ReLU layers whose weights start at three times He's initialisation: signal and gradient explode.

Every layer triples both, so that the logits start in the tens of thousands and the first layer's gradient is five
decades above the last one's. Adam normalises the gradients, which hides the trouble: the loss falls from absurd to bad.
gradcheck finds GC102 with GC601 as its cause, and for the gradients' size GC107.

    gradcheck profile sample_models/huge_init_relu.py:build
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC102", "GC107", "GC601"})


def build(depth: int = 10, width: int = 64, gain: float = 3.0, lr: float = 1e-4) -> dict[str, Any]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([64] + [width] * depth):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.normal_(linear.weight, std=gain * (2 / fan_in) ** 0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
