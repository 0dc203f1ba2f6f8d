"""Sick: twelve tanh layers whose weights start at N(0, 0.01), far too small: signal and gradient both vanish.

Forwards the signal shrinks by a factor of about twelve a layer, backwards the gradient does. In the weights' own
gradients the two cancel, all layers look alike there: only the gradient with respect to the layers' outputs shows it.
gradcheck finds GC101 with GC601, the initialisation, as its cause, for the gradients' size GC108, and that the output
comes to depend on nothing but the last bias, GC613.

    gradcheck profile sample_models/tiny_init_tanh.py:build
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC101", "GC108", "GC601", "GC613"})


def build(depth: int = 12, width: int = 64, std: float = 0.01, lr: float = 0.1) -> dict[str, Any]:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([64] + [width] * depth):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
