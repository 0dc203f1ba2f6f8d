"""Sick: a vision transformer whose queries and keys begin at N(0, 1): each token looks at one other from the start.

`nn.init.normal_` without a std is thirty times what attention was made for. Softmax then gives one key all the weight
and has no slope, so queries and keys hardly learn; the rest of the network does, so that the loss falls and no gradient
norm is strange. gradcheck finds GC604.

    gradcheck profile sample_models/sharp_attention.py:build
"""

from __future__ import annotations

from typing import Any

import torch
from sample_data import batches, digits
from torch import nn
from vit_digits import VisionTransformer

EXPECTED: frozenset[str] = frozenset({"GC604"})


def build(width: int = 32, heads: int = 4, depth: int = 4, lr: float = 1e-3) -> dict[str, Any]:
    pixels, labels = digits()
    model = VisionTransformer(width, heads, depth)
    for block in model.blocks:
        queries_and_keys = block.self_attn.in_proj_weight[: 2 * width]
        nn.init.normal_(queries_and_keys)
    return {
        "model": model,
        "dataloader": batches(pixels.view(-1, 1, 8, 8), labels),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=lr),
    }
