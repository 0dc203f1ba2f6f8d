"""Healthy: a two-layer character-level LSTM on Python source, PyTorch's default initialisation.

Nothing is wrong with it, gradcheck finds nothing.

    gradcheck profile sample_models/char_lstm.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import VOCABULARY, batches, text_windows
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset()


class CharacterLSTM(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, numbers: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.tokens(numbers))
        return self.head(hidden)


def next_character_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build(width: int = 64, length: int = 48, lr: float = 3e-3) -> dict[str, Any]:
    model = CharacterLSTM(width)
    return {
        "model": model,
        "dataloader": batches(*text_windows(length), batch_size=16),
        "loss_fn": next_character_loss,
        "optimizer": torch.optim.Adam(model.parameters(), lr=lr),
    }
