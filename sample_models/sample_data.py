"""The real data that the samples train on; it comes with the machine, nothing is downloaded.

Digits: scikit-learn's 1797 handwritten digits of 8x8 pixels. Text: source code of Python's standard library.
"""

from __future__ import annotations

import argparse
import inspect
import string
import textwrap
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

ALPHABET = string.printable
VOCABULARY = len(ALPHABET)


def digits() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 64) float32, standardised over the whole set, and labels (1797,) int64 from 0 to 9."""
    pixels, labels = raw_digits()
    return (pixels - pixels.mean()) / pixels.std(), labels


def raw_digits() -> tuple[Tensor, Tensor]:
    """The same with pixels from 0 to 16."""
    table = torch.tensor(np.loadtxt(digits_file(), delimiter=","), dtype=torch.float32)
    return table[:, :-1].contiguous(), table[:, -1].long()


def digits_file() -> Path:
    """Where scikit-learn has them. Importing it would take longer than most runs of a sample."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the digits come with scikit-learn: pip install scikit-learn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


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
