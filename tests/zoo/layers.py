"""Parts that several models of the zoo are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Model = TypeVar("Model", bound=nn.Module)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def mlp(
    depth: int, width: int, activation: Callable[[], nn.Module], inputs: int = 64, outputs: int = 10
) -> nn.Sequential:
    """A network with `depth` hidden layers."""
    sizes = [inputs] + [width] * depth
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def reset(model: Model, weights: Callable[[Tensor], object], bias: float = 0.0) -> Model:
    """Initialise every linear layer and convolution anew."""
    for module in model.modules():
        if isinstance(module, WEIGHTED):
            weights(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
    return model


def he_normal(model: Model, scale: float = 1.0) -> Model:
    """He's initialisation for ReLU, times `scale`, biases 0. He et al., 2015."""

    def draw(weight: Tensor) -> None:
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
        with torch.no_grad():
            weight.mul_(scale)

    return reset(model, draw)


def xavier_normal(model: Model, gain: float = 1.0) -> Model:
    """Xavier's initialisation, biases 0. Glorot and Bengio, 2010."""
    return reset(model, lambda weight: nn.init.xavier_normal_(weight, gain))


def normal(model: Model, std: float) -> Model:
    """N(0, std), biases 0."""
    return reset(model, lambda weight: nn.init.normal_(weight, std=std))


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Attention(nn.Module):
    """Multi-head self-attention; logits are divided by sqrt(width of a head) and multiplied by `sharpness`."""

    def __init__(self, width: int, heads: int, causal: bool = False, sharpness: float = 1.0) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.scale = sharpness * (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=self.scale)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


def feed_forward(width: int) -> nn.Sequential:
    """Two layers with GELU between them, four times as wide."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class PreNormBlock(nn.Module):
    """Normalisation on the branches. Xiong et al., 2020."""

    def __init__(self, width: int, attention: nn.Module, feed: nn.Module | None = None) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), attention
        self.norm2, self.feed = nn.LayerNorm(width), feed or feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class PostNormBlock(nn.Module):
    """Normalisation on the stream. Vaswani et al., 2017."""

    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), attention
        self.norm2, self.feed = nn.LayerNorm(width), feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed(x))


class LanguageModel(nn.Module):
    """Embeddings, blocks, and scores of the next token; `tied` shares the embedding's weight with the head."""

    def __init__(
        self, blocks: list[nn.Module], width: int, vocabulary: int, length: int = 32, tied: bool = False
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        gpt_init(self, len(blocks))
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.tokens(numbers) + self.positions.weight[: numbers.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt_init(model: nn.Module, depth: int) -> None:
    """GPT-2's: N(0, 0.02), what writes to the stream smaller by sqrt(2 x depth). Radford et al., 2019, section 2.3."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            writes = name.endswith(("proj", "feed.2"))
            nn.init.normal_(module.weight, std=0.02 / (2 * depth) ** 0.5 if writes else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
