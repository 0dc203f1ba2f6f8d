"""Healthy: a character-level GPT on Python source: pre-LN blocks, tied embeddings, GPT-2's initialisation.

The token embedding and the output layer share one weight, which counts once. Nothing is wrong with it, gradcheck
finds nothing.

    gradcheck profile sample_models/char_gpt.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import VOCABULARY, batches, text_windows
from torch import Tensor, nn
from torch.nn import functional

EXPECTED: frozenset[str] = frozenset()


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.proj(functional.gelu(self.fc(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, width: int, heads: int, depth: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        initialise(self, depth)
        self.head.weight = self.tokens.weight

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.tokens(numbers) + self.positions.weight[: numbers.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def initialise(model: nn.Module, depth: int) -> None:
    """GPT-2's: N(0, 0.02), and what writes to the residual stream smaller by sqrt(2 x depth)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02 / (2 * depth) ** 0.5 if name.endswith("proj") else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def next_character_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build(width: int = 64, heads: int = 4, depth: int = 4, length: int = 64, lr: float = 1e-3) -> dict[str, Any]:
    model = GPT(width, heads, depth, length)
    return {
        "model": model,
        "dataloader": batches(*text_windows(length), batch_size=16),
        "loss_fn": next_character_loss,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=lr),
    }
