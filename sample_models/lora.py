"""Healthy: a LoRA fine-tune. The base network has learnt upright digits and is frozen; the adapters learn rotated ones.

Each adapter's second matrix starts at zero, so its first matrix gets a zero gradient in the first step and recovers.
gradcheck names the frozen layers (GC105, information) and finds nothing wrong.

    gradcheck profile sample_models/lora.py:build
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset({"GC105"})


class AdaptedLinear(nn.Module):
    """base(x) + up(down(x)), the low-rank part starting at zero (Hu et al. 2021)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64 if index == 0 else width, width) for index in range(4))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.relu(layer(x))
        return self.head(x)


def pretrain(model: Network, pixels: Tensor, labels: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for inputs, targets in islice(batches(pixels, labels), steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()


def build(width: int = 64, rank: int = 4, lr: float = 5e-3) -> dict[str, Any]:
    pixels, labels = digits()
    model = Network(width)
    pretrain(model, pixels, labels, steps=50)
    model.head.requires_grad_(False)
    model.layers = nn.ModuleList(AdaptedLinear(layer, rank) for layer in model.layers)
    rotated = pixels.view(-1, 8, 8).transpose(1, 2).flip(2).flatten(1)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {
        "model": model,
        "dataloader": batches(rotated, labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(trainable, lr=lr),
    }
