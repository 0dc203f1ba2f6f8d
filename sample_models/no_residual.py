"""Sick: a vision transformer in which the residual connections were forgotten: after six blocks all tokens are alike.

Attention averages tokens, and without a residual connection nothing keeps them apart. gradcheck finds GC605.

    gradcheck profile sample_models/no_residual.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset({"GC605"})


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        given = self.norm1(x)
        x, _ = self.attention(given, given, given, need_weights=False)
        return self.feed(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.positions = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(16 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).flatten(1))


def build(width: int = 32, heads: int = 4, depth: int = 6, lr: float = 3e-4) -> dict[str, Any]:
    pixels, labels = digits()
    model = VisionTransformer(width, heads, depth)
    return {
        "model": model,
        "dataloader": batches(pixels.view(-1, 1, 8, 8), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=lr),
    }
