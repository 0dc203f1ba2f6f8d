"""The real data that the samples train on; it comes with the machine, nothing is downloaded.

Digits: scikit-learn's 1797 handwritten digits of 8x8 pixels. Text: source code of Python's standard library.
"""

from __future__ import annotations

import argparse
import inspect
import string
import textwrap

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

ALPHABET = string.printable
VOCABULARY = len(ALPHABET)


def digits() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 64) float32, standardised over the whole set, and labels (1797,) int64 from 0 to 9."""
    bunch = load_digits()
    pixels = torch.tensor(bunch.data, dtype=torch.float32)
    return (pixels - pixels.mean()) / pixels.std(), torch.tensor(bunch.target, dtype=torch.int64)


def text_windows(length: int = 64) -> tuple[Tensor, Tensor]:
    """Characters of source code as (windows, length) int64, and the same shifted by one: what comes next."""
    text = inspect.getsource(argparse) + inspect.getsource(textwrap)
    numbers = torch.tensor([ALPHABET.index(character) for character in text if character in ALPHABET])
    windows = numbers[: (len(numbers) - 1) // length * length + 1].unfold(0, length + 1, length)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def batches(
    inputs: Tensor, targets: Tensor, batch_size: int = 32, shuffle: bool = True
) -> DataLoader[tuple[Tensor, ...]]:
    """Full batches of (inputs, targets)."""
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=shuffle, drop_last=True)
