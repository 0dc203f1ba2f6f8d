"""Sick: a Siamese network on pairs of digits whose distance is a square root of 0 when a picture is its own partner.

The pairs are drawn at random, once, and picture 374 drew itself: batch 11 (counted from 0), sample 22. The loss stays
finite, but the slope of sqrt at 0 is infinite, and times the 0 of the contrastive loss it is NaN. gradcheck profile
finds the gradients (GC302) and, one step later, the weights (GC303) and the loss (GC301). gradcheck nan-trace must
find: step 11, backward, aten::sqrt, the line of `torch.sqrt` in `Distance.forward`, because its input is exactly 0,
sample 22 alone.

    gradcheck nan-trace sample_models/nan_sqrt.py:build
    gradcheck profile sample_models/nan_sqrt.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

EXPECTED: frozenset[str] = frozenset({"GC301", "GC302", "GC303"})


class Distance(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.sqrt((first - second).square().sum(dim=1))


class Siamese(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 16))
        self.distance = Distance()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.distance(self.encoder(first), self.encoder(second))


def contrastive_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Pictures of the same digit attract each other, others are pushed 2 apart."""
    first, second, same = batch
    distance = model(first, second)
    return torch.where(same, distance.square(), functional.relu(2 - distance).square()).mean()


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = digits()
    partner = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(3))
    pairs = TensorDataset(pixels, pixels[partner], labels == labels[partner])
    model = Siamese(width)
    return {
        "model": model,
        "dataloader": DataLoader(pairs, batch_size=32, drop_last=True),
        "training_step": contrastive_loss,
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
