"""Sick: the head is attached to its backbone after the optimizer was made, which therefore does not hold it.

The head gets gradients that nobody applies; the loss falls all the same, because the trunk learns around it.
gradcheck finds GC106.

    gradcheck profile sample_models/missing_from_optimizer.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset({"GC106"})


class Classifier(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.head: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    model = Classifier(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.head = nn.Linear(width, 10)
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": optimizer,
    }
