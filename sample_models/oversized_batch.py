"""Wasteful: batches of 1024 digits where a few dozen would take the same steps.

Nothing is wrong with the model: the loss falls. gradcheck finds, as information, that there is next to no noise in the
gradient: GC610.

    gradcheck profile sample_models/oversized_batch.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import nn

EXPECTED: frozenset[str] = frozenset({"GC610"})


def build(batch_size: int = 1024, lr: float = 0.01) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return {
        "model": model,
        "dataloader": batches(*digits(), batch_size=batch_size),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
