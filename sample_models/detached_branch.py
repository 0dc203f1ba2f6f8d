"""Sick: of two encoders one is cut off by a `.detach()` that was left behind after debugging.

The column encoder still feeds the classifier, so the loss falls, but it never gets a gradient and stays at its random
start. gradcheck finds GC103, an error because the module is used.

    gradcheck profile sample_models/detached_branch.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset({"GC103"})


def make_encoder(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(8, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3), nn.ReLU())


class TwoViews(nn.Module):
    """Reads a digit row by row and column by column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = make_encoder(width)
        self.columns = make_encoder(width)
        self.head = nn.Sequential(nn.Flatten(), nn.LayerNorm(12 * width), nn.Linear(12 * width, 10))

    def forward(self, images: Tensor) -> Tensor:
        rows = self.rows(images)
        columns = self.columns(images.transpose(1, 2))
        return self.head(torch.cat([rows, columns.detach()], dim=1))


def build(width: int = 32, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = digits()
    model = TwoViews(width)
    return {
        "model": model,
        "dataloader": batches(pixels.view(-1, 8, 8), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
