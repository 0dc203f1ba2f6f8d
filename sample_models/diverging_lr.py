"""Sick: least squares by plain gradient descent with a learning rate beyond 2 / (largest curvature).

A linear map from pixels to one-hot labels: each step overshoots further than the last, and loss, gradients and weights
grow geometrically, though all stay finite for 50 steps. gradcheck finds GC203, and what comes of it: GC107, GC204,
GC306, and GC609 for updates of two fifths of the weights and more.

    gradcheck profile sample_models/diverging_lr.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset({"GC107", "GC203", "GC204", "GC306", "GC609"})


def squared_error(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of the squared distance to the one-hot label."""
    return (scores - functional.one_hot(labels, 10)).square().sum(dim=1).mean()


def build(lr: float = 0.034) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(64, 10))
    return {
        "model": model,
        "dataloader": batches(*digits(), batch_size=64),
        "loss_fn": squared_error,
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
    }
