"""What the scripts train on and with: scikit-learn's handwritten digits, and a small classifier."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def arguments(description: str | None, steps: int = 40) -> argparse.Namespace:
    """The options that all scripts have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    return args


def digits() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 64) float32, standardised over the whole set, and labels (1797,) int64 from 0 to 9."""
    bunch = load_digits()
    pixels = torch.tensor(bunch.data, dtype=torch.float32)
    return (pixels - pixels.mean()) / pixels.std(), torch.tensor(bunch.target, dtype=torch.int64)


def batches(count: int, batch_size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """So many random batches of digits."""
    pixels, labels = digits()
    for _ in range(count):
        chosen = torch.randint(len(pixels), (batch_size,))
        yield pixels[chosen], labels[chosen]


def classifier(dropout: float = 0.0) -> nn.Sequential:
    """Two layers for digits."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10))
