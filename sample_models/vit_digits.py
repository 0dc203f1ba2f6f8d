"""Healthy: a small vision transformer, 16 patches of 2x2 pixels a digit, no BatchNorm.

Nothing in it depends on how the batch is cut, so it suits `--accumulate`:

    gradcheck profile sample_models/vit_digits.py:build
    gradcheck profile sample_models/vit_digits.py:build --accumulate 2
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset()


class VisionTransformer(nn.Module):
    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.positions = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(16 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).flatten(1))


def build(width: int = 32, heads: int = 4, depth: int = 4, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = digits()
    model = VisionTransformer(width, heads, depth)
    return {
        "model": model,
        "dataloader": batches(pixels.view(-1, 1, 8, 8), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=lr),
    }
