"""Healthy: a small residual network with BatchNorm on handwritten digits as 8x8 images.

The last BatchNorm of each block starts at zero, so that each block starts as the identity; the convolutions before
it get a zero gradient in the first step and recover. Nothing is wrong with it, gradcheck finds nothing.

    gradcheck profile sample_models/digits_cnn.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset()


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(branch)))


class ResidualNetwork(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(depth)))
        self.head = nn.Linear(4 * channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(images)))
        return self.head(functional.avg_pool2d(self.blocks(x), 4).flatten(1))


def build(channels: int = 16, depth: int = 4, lr: float = 3e-3) -> dict[str, Any]:
    pixels, labels = digits()
    model = ResidualNetwork(channels, depth)
    return {
        "model": model,
        "dataloader": batches(pixels.view(-1, 1, 8, 8), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=lr),
    }
