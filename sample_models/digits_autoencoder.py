"""Healthy: a denoising autoencoder with its own `training_step`, a bottleneck of 16 and a warm-up schedule.

Its batches need no label, so the step is written out instead of given as a criterion. Nothing is wrong with it,
gradcheck finds nothing.

    gradcheck profile sample_models/digits_autoencoder.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset()
CLIP_VERDICT = "not-needed"


class Autoencoder(nn.Module):
    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(64, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, bottleneck)
        )
        self.decoder = nn.Sequential(
            nn.Linear(bottleneck, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 64)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decoder(self.encoder(pixels))


def training_step(model: nn.Module, batch: list[Tensor]) -> Tensor:
    """Rebuild the pixels from a noisy copy; the labels in the batch go unused."""
    pixels = batch[0]
    return functional.mse_loss(model(pixels + 0.3 * torch.randn_like(pixels)), pixels)


def build(width: int = 96, bottleneck: int = 16, lr: float = 2e-3) -> dict[str, Any]:
    model = Autoencoder(width, bottleneck)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    return {
        "model": model,
        "dataloader": batches(*digits()),
        "training_step": training_step,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=10),
    }
