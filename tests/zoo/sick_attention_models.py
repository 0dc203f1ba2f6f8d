"""Broken: attention that is saturated from the start. No gradient norm shows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.attention_models import HEADS, WIDTH, PatchNet, RowClassifier
from tests.zoo.data import VOCABULARY, classify, digit_rows, language, workload
from tests.zoo.hub_models import NEEDS, encoder, gpt2, language_model, masked_model
from tests.zoo.layers import Attention, LanguageModel, PreNormBlock
from tests.zoo.specimen import broken


def sharpen(model: nn.Module, factor: float) -> nn.Module:
    """Multiply the weights that make queries and keys."""
    for module in model.modules():
        if isinstance(module, Attention):
            width = module.qkv.in_features
            with torch.no_grad():
                module.qkv.weight[: 2 * width] *= factor
    return model


def xavier_attention(width: int) -> Attention:
    """Queries and keys with Xavier's initialisation: logits of about 1."""
    attention = Attention(width, HEADS)
    for part in attention.qkv.weight.chunk(3):
        nn.init.xavier_normal_(part)
    return attention


@broken("GC604", quick=True)
def attention_twice() -> dict[str, Any]:
    """Queries and keys at twice Xavier's."""
    return classify(sharpen(PatchNet([PreNormBlock(48, xavier_attention(48)) for _ in range(6)], 48), 2.0))


@broken("GC604", quick=True)
def attention_eight_times() -> dict[str, Any]:
    """Queries and keys at eight times Xavier's."""
    return classify(sharpen(PatchNet([PreNormBlock(48, xavier_attention(48)) for _ in range(6)], 48), 8.0))


@broken("GC604")
def attention_without_scaling() -> dict[str, Any]:
    """The division by sqrt(d) was forgotten, in heads of 64."""

    def attention() -> Attention:
        made = Attention(64, 1, causal=True, sharpness=8.0)
        for part in made.qkv.weight.chunk(3):
            nn.init.xavier_normal_(part)
        return made

    model = LanguageModel([PreNormBlock(64, attention()) for _ in range(4)], 64, VOCABULARY)
    for block in model.blocks:
        nn.init.xavier_normal_(block.attention.qkv.weight)
    return language(model)


@broken("GC604")
def attention_normal_1() -> dict[str, Any]:
    """Weights of queries and keys at N(0, 1)."""
    model = RowClassifier(3, norm_first=True)
    for layer in model.encoder.layers:
        nn.init.normal_(layer.self_attn.in_proj_weight[:128])
    return workload(model, digit_rows(8), nn.CrossEntropyLoss())


class HandWritten(nn.Module):
    """Attention by matmul and softmax, with a temperature that is far too low."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 0.02
        return torch.softmax(scores, -1) @ self.value(x)


@broken("GC604", quick=True)
def attention_low_temperature() -> dict[str, Any]:
    return classify(PatchNet([PreNormBlock(WIDTH, HandWritten(WIDTH)) for _ in range(4)], WIDTH))


@broken("GC604", needs=NEEDS)
def hf_gpt2_init_range_1() -> dict[str, Any]:
    """initializer_range 0.4 instead of 0.02."""
    return language_model(gpt2(4, initializer_range=0.4), batch=8)


@broken("GC604", needs=NEEDS)
def hf_bert_attention_8() -> dict[str, Any]:
    """Queries and keys of a BERT at twenty times what the library draws."""
    from transformers import BertConfig, BertForMaskedLM

    model = BertForMaskedLM(BertConfig(**encoder(4)))
    for name, parameter in model.named_parameters():
        if name.endswith(("query.weight", "key.weight")):
            nn.init.normal_(parameter, std=0.4)
    return masked_model(model, VOCABULARY)
