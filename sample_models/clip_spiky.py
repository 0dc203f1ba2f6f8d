"""Needs clipping: a network that paints the right half of a digit, where one scan of 1797 is overexposed.

Its pixels are sixty times too bright. The squared error lets the batch that holds it dominate: once an epoch, one
gradient of twenty times the usual size throws the weights off, and momentum carries them on. Clipped, the network ends
with a loss that is a fifth lower. gradcheck profile finds the first such loss spike (GC202) and the scan (GC612).

    gradcheck recommend-clip sample_models/clip_spiky.py:build --verify
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EXPECTED: frozenset[str] = frozenset({"GC202", "GC612"})
CLIP_VERDICT = "clip"
OVEREXPOSED = 366


def halves(glare: float) -> TensorDataset:
    """Left and right halves (1797, 32) of the digits, one right half too bright."""
    images = digits()[0].view(-1, 8, 8)
    left, right = images[:, :, :4].flatten(1), images[:, :, 4:].flatten(1)
    right[OVEREXPOSED] *= glare
    return TensorDataset(left, right)


def build(width: int = 128, glare: float = 60.0, lr: float = 0.1) -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 32))
    # The order has a generator of its own, so that the scan comes at the same steps whatever the seed.
    order = torch.Generator().manual_seed(0)
    return {
        "model": model,
        "dataloader": DataLoader(halves(glare), batch_size=32, shuffle=True, drop_last=True, generator=order),
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
    }
