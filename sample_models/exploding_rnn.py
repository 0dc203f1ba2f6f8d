"""Sick: a plain recurrent network whose recurrent weights are six times PyTorch's: gradients explode through time.

It reads a digit pixel by pixel, 64 time steps, and answers after the last. On the way back each step multiplies the
gradient, so that the first pixels get one that is millions of times the last one's, and the norm swings by decades.
gradcheck finds GC606, the matrix's spectral radius with it (GC607), and the size of the gradients (GC107).

    gradcheck profile sample_models/exploding_rnn.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset({"GC107", "GC606", "GC607"})


class PixelRNN(nn.Module):
    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, width, batch_first=True)
        self.head = nn.Linear(width, 10)
        with torch.no_grad():
            self.rnn.weight_hh_l0.mul_(gain)

    def forward(self, pixels: Tensor) -> Tensor:
        output, _ = self.rnn(pixels)
        return self.head(output[:, -1])


def build(width: int = 64, gain: float = 6.0, lr: float = 1e-3) -> dict[str, Any]:
    model = PixelRNN(width, gain)
    pixels, labels = digits()
    return {
        "model": model,
        "dataloader": batches(pixels.unsqueeze(-1), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
