"""Sick: ten tanh layers whose biases start at 4, so that all units sit where tanh is flat; the gradient vanishes.

The weights are right (Xavier). At 4 the slope of tanh is 0.001, and the signal is close to 1 everywhere, whatever the
input. A bias of that size belongs to the forget gate of an LSTM. gradcheck finds GC101 with GC602 as its cause, for
the gradients' size GC108, and that the output hardly depends on the input, GC613.

    gradcheck profile sample_models/saturated_tanh.py:build
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC101", "GC108", "GC602", "GC613"})


def build(depth: int = 10, width: int = 64, bias: float = 4.0, lr: float = 0.1) -> dict[str, Any]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([64] + [width] * depth):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.xavier_normal_(linear.weight)
        nn.init.constant_(linear.bias, bias)
        layers += [linear, nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
