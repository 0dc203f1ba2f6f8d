"""What the scripts train on and with: scikit-learn's handwritten digits, and a small classifier."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
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
    package = find_spec("sklearn")  # importing it would take longer than the scripts do
    assert package
    assert package.origin
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.tensor(np.loadtxt(file, delimiter=","), dtype=torch.float32)
    pixels = table[:, :-1].contiguous()
    return (pixels - pixels.mean()) / pixels.std(), table[:, -1].long()


def batches(count: int, batch_size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """So many random batches of digits."""
    pixels, labels = digits()
    for _ in range(count):
        chosen = torch.randint(len(pixels), (batch_size,))
        yield pixels[chosen], labels[chosen]


def classifier(dropout: float = 0.0) -> nn.Sequential:
    """Two layers for digits."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10))
