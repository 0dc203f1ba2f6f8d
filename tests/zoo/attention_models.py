"""Healthy transformers and their kin, from torch's own modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import VOCABULARY, classify, digit_rows, language, loader, make_optimizer, tokens, workload
from tests.zoo.layers import Attention, LanguageModel, PostNormBlock, PreNormBlock, feed_forward
from tests.zoo.specimen import healthy

WIDTH, HEADS = 32, 4


def causal() -> Attention:
    return Attention(WIDTH, HEADS, causal=True)


@healthy()
def pre_norm_48() -> dict[str, Any]:
    return language(
        LanguageModel([PreNormBlock(WIDTH, causal()) for _ in range(48)], WIDTH, VOCABULARY, 16), 16, lr=3e-4, batch=8
    )


@healthy(quick=True)
def post_norm_6() -> dict[str, Any]:
    return language(LanguageModel([PostNormBlock(WIDTH, causal()) for _ in range(6)], WIDTH, VOCABULARY), lr=5e-4)


@healthy()
def weight_tied_lm() -> dict[str, Any]:
    return language(LanguageModel([PreNormBlock(WIDTH, causal()) for _ in range(6)], WIDTH, VOCABULARY, tied=True))


class Mixture(nn.Module):
    """Each token goes to its two best experts. Shazeer et al., 2017."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(feed_forward(width) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = torch.softmax(self.router(x), -1).topk(2)
        weights = weights / weights.sum(-1, keepdim=True)
        made = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            tokens_of = mine.any(-1)
            made[tokens_of] += (weights * mine).sum(-1)[tokens_of][:, None] * expert(x[tokens_of])
        return made


@healthy(quick=True)
def mixture_of_experts() -> dict[str, Any]:
    blocks = [PreNormBlock(WIDTH, causal(), Mixture(WIDTH, 4)) for _ in range(4)]
    return language(LanguageModel(blocks, WIDTH, VOCABULARY))


class PatchNet(nn.Module):
    """Patches of 2x2 pixels, blocks, the mean over patches. Dosovitskiy et al., 2021."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, 2)
        self.positions = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


@healthy(quick=True)
def vision_transformer() -> dict[str, Any]:
    return classify(PatchNet([PreNormBlock(48, Attention(48, 4)) for _ in range(6)], 48))


class Mixing(nn.Module):
    """An MLP across tokens. Tolstikhin et al., 2021."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(length, 2 * length), nn.GELU(), nn.Linear(2 * length, length))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.transpose(1, 2)).transpose(1, 2)


@healthy()
def mlp_mixer() -> dict[str, Any]:
    return classify(PatchNet([PreNormBlock(48, Mixing(16)) for _ in range(6)], 48))


class RowClassifier(nn.Module):
    """torch's own encoder over the rows of a digit."""

    def __init__(self, layers: int, norm_first: bool, activation: Any = "relu") -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.1, activation, batch_first=True, norm_first=norm_first)
        self.enter, self.head = nn.Linear(8, 64), nn.Linear(64, 10)
        self.positions = nn.Parameter(0.02 * torch.randn(8, 64))
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.encoder(self.enter(rows) + self.positions).mean(1))


@healthy()
def torch_encoder_pre_norm() -> dict[str, Any]:
    return workload(RowClassifier(4, norm_first=True), digit_rows(8), nn.CrossEntropyLoss())


@healthy()
def torch_encoder_post_norm() -> dict[str, Any]:
    return workload(RowClassifier(4, norm_first=False), digit_rows(8), nn.CrossEntropyLoss(), lr=5e-4)


class Reverser(nn.Module):
    """torch's own encoder and decoder."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(16, width)
        self.transformer = nn.Transformer(width, 4, 2, 2, 96, 0.1, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(16)
        ends = self.positions.weight
        return self.head(self.transformer(self.tokens(source) + ends, self.tokens(target) + ends, tgt_mask=mask))


@healthy()
def torch_transformer() -> dict[str, Any]:
    """Write the text backwards."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        source = batch[0]
        target = source.flip(1)
        scores = model(source, functional.pad(target[:, :-1], (1, 0)))
        return functional.cross_entropy(scores.flatten(0, 1), target.flatten())

    model = Reverser()
    data, adam = loader(*tokens(16)), make_optimizer(model, "adamw", 1e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adam}
