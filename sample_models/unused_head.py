"""Sick: the model has a second, auxiliary head that `forward` never calls.

It learns nothing, costs memory, and makes DistributedDataParallel fail. gradcheck finds GC103, a warning because the
module is not used at all.

    gradcheck profile sample_models/unused_head.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset({"GC103"})


class TwoHeads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.head = nn.Linear(width, 10)
        self.auxiliary = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    model = TwoHeads(width)
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
