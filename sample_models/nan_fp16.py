"""Sick: squared ReLUs on pixels in percent, 0 to 100, in half precision, which ends at 65504.

Autocast runs the layers in float16: the squares of the first block fit, those of the second do not. In float32 the
same model trains. gradcheck profile finds the loss (GC301), the gradients (GC302) and, after the first update, the
weights (GC303). gradcheck nan-trace must find: step 0, forward, aten::pow (which `.square()` runs), the line of
`.square()` in `SquaredReLU.forward`, module blocks.1.activation, because squares of finite numbers overflow float16.

    gradcheck nan-trace sample_models/nan_fp16.py:build
    gradcheck profile sample_models/nan_fp16.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, raw_digits
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset({"GC301", "GC302", "GC303"})


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x).square()


class Block(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, width)
        self.activation = SquaredReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.fc(x))


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(64, width), Block(width, width))
        self.head = nn.Linear(width, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.float16):
            return self.head(self.blocks(pixels)).float()


def build(width: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = raw_digits()
    model = Network(width)
    return {
        "model": model,
        "dataloader": batches(pixels * (100 / 16), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
