"""Sick: a loss scale of one's own that nobody divides out: every gradient is 1024 times too large.

The backward of `scaled` multiplies by 1024, as static loss scaling did before GradScaler, and the line that divides the
gradients again is missing. Adam hides it, since it divides by the gradient's own size: the loss falls as if all were
well, but any max_norm would clip always. gradcheck finds large gradients (GC107), and with --check-scale the factor of
2^10 (GC611).

    gradcheck profile sample_models/forgotten_unscale.py:build --check-scale
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset({"GC107", "GC611"})


class Scaled(torch.autograd.Function):
    """The loss itself, with a gradient that is `scale` times as large."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None


def build(width: int = 64, scale: float = 1024.0, lr: float = 1e-3) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, labels = batch
        return Scaled.apply(functional.cross_entropy(model(pixels), labels), scale)

    return {
        "model": model,
        "dataloader": batches(*digits()),
        "training_step": training_step,
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
