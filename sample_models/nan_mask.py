"""Sick: attention over the characters of a window that are not white space, where some windows are nothing else.

The model guesses the next character of Python source code from 16 before it. Sooner or later a window lies inside a
deep indentation: its row of scores is -inf throughout, and softmax of that is NaN. gradcheck profile finds the loss
(GC301), the gradients (GC302) and, after that step's update, the weights (GC303). gradcheck nan-trace must find: the
first step with such a window (8 with Python 3.11), forward, aten::_softmax, the line of `torch.softmax` in
`AttentionPool.forward`, because rows are fully masked, with the mask in the line above as what contributed.

    gradcheck nan-trace sample_models/nan_mask.py:build
    gradcheck profile sample_models/nan_mask.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import ALPHABET, VOCABULARY, batches, text_windows
from torch import Tensor, nn

EXPECTED: frozenset[str] = frozenset({"GC301", "GC302", "GC303"})
SPACES = torch.tensor([character.isspace() for character in ALPHABET])


class AttentionPool(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        scores = self.score(x).squeeze(-1).masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        return torch.einsum("nt,ntd->nd", weights, x)


class NextCharacter(nn.Module):
    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.1 * torch.randn(length, width))
        self.pool = AttentionPool(width)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, VOCABULARY))

    def forward(self, windows: Tensor) -> Tensor:
        x = self.characters(windows) + self.positions
        return self.head(self.pool(x, SPACES[windows]))


def build(length: int = 16, width: int = 32, lr: float = 1e-3) -> dict[str, Any]:
    windows, following = text_windows(length)
    model = NextCharacter(length, width)
    return {
        "model": model,
        "dataloader": batches(windows, following[:, -1], shuffle=False),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
