"""Sick data, healthy model: each picture is standardised by its own contrast, and one picture is blank.

Picture 1200 was not scanned: all its pixels are 0, so is their standard deviation, and 0 / 0 makes every pixel NaN.
The batches come in a fixed order, and it is in batch 37 (counted from 0), sample 16. gradcheck profile finds the input
(GC304), the loss (GC301), the gradients (GC302) and, after that step's update, the weights (GC303). gradcheck nan-trace
must find: step 37, data, batch['pixels'], the line of `model(...)` in `training_step` or the model's first layer that
reads it, sample 16 alone.

    gradcheck nan-trace sample_models/nan_data_late.py:build
    gradcheck profile sample_models/nan_data_late.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

EXPECTED: frozenset[str] = frozenset({"GC301", "GC302", "GC303", "GC304"})
BLANK = 1200


class Standardised(Dataset[dict[str, Tensor]]):
    """Pictures of mean 0 and standard deviation 1, each by itself."""

    def __init__(self) -> None:
        self.pixels, self.labels = digits()
        self.pixels[BLANK] = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        picture = self.pixels[index]
        return {"pixels": (picture - picture.mean()) / picture.std(), "label": self.labels[index]}


def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch["pixels"]), batch["label"])


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return {
        "model": model,
        "dataloader": DataLoader(Standardised(), batch_size=32, drop_last=True),
        "training_step": training_step,
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
