"""Healthy networks that have been trained for a while: what is usual later is not usual at the start."""

from __future__ import annotations

from itertools import chain, islice, repeat
from typing import Any

from torch import nn

from tests.zoo.attention_models import WIDTH, causal, vision_transformer
from tests.zoo.data import VOCABULARY, flat, language
from tests.zoo.image_models import resnet_bn_20, small_cnn_default
from tests.zoo.layers import LanguageModel, PreNormBlock, mlp
from tests.zoo.sequence_models import RecurrentLM
from tests.zoo.specimen import healthy


def trained(parts: dict[str, Any], steps: int) -> dict[str, Any]:
    """The same after that many steps."""
    model: nn.Module = parts["model"]
    for inputs, targets in islice(chain.from_iterable(repeat(parts["dataloader"])), steps):
        parts["optimizer"].zero_grad()
        parts["loss_fn"](model(inputs), targets).backward()
        parts["optimizer"].step()
    return parts


@healthy()
def trained_lm() -> dict[str, Any]:
    blocks = [PreNormBlock(WIDTH, causal()) for _ in range(4)]
    return trained(language(LanguageModel(blocks, WIDTH, VOCABULARY), lr=3e-3), 300)


@healthy()
def trained_lstm() -> dict[str, Any]:
    return trained(language(RecurrentLM(nn.LSTM, 2), lr=3e-3), 150)


@healthy()
def trained_cnn() -> dict[str, Any]:
    return trained(small_cnn_default(), 200)


@healthy()
def trained_resnet() -> dict[str, Any]:
    return trained(resnet_bn_20(), 50)


@healthy()
def trained_vision_transformer() -> dict[str, Any]:
    return trained(vision_transformer(), 120)


@healthy()
def trained_sigmoid_mlp() -> dict[str, Any]:
    return trained(flat(mlp(2, 64, nn.Sigmoid), "adam", 3e-3), 500)


@healthy()
def trained_tanh_mlp() -> dict[str, Any]:
    return trained(flat(mlp(3, 64, nn.Tanh)), 1000)
