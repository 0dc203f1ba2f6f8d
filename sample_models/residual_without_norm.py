"""Sick: twelve residual blocks with He's initialisation and no normalisation: each one nearly doubles the signal.

What a block adds is as large as what it reads, and the next block reads the sum. The gradient grows as much on its way
back. gradcheck finds GC608, and for the gradients GC102 and GC107.

    gradcheck profile sample_models/residual_without_norm.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset({"GC102", "GC107", "GC608"})


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        for linear in (self.inner, self.outer):
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(functional.relu(self.inner(x)))


class ResidualNetwork(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def build(width: int = 64, depth: int = 12, lr: float = 1e-5) -> dict[str, Any]:
    model = ResidualNetwork(width, depth)
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
