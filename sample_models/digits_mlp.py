"""Healthy: a plain four-layer ReLU network with He initialisation that learns handwritten digits.

Nothing is wrong with it, gradcheck finds nothing.

    gradcheck profile sample_models/digits_mlp.py:build
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset()


def make_model(width: int) -> nn.Sequential:
    sizes = [64, width, width, width, 10]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    model = make_model(width)
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
