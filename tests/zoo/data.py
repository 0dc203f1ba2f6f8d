"""What the zoo trains on: real digits and text, in the shapes that the models take. Nothing is downloaded."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from sample_models.sample_data import VOCABULARY, digits, text_windows

__all__ = ["VOCABULARY", "classify", "digit_images", "digit_rows", "language", "loader", "tokens", "workload"]

BATCH = 32


def loader(inputs: Tensor, targets: Tensor, batch_size: int = BATCH) -> DataLoader[tuple[Tensor, ...]]:
    """Full batches, shuffled."""
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=True, drop_last=True)


@cache
def digit_images(size: int = 8, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Digits as images (1024, channels, size, size) float32, standardised, and labels (1024,) int64."""
    pixels, labels = digits()
    images = pixels[:1024].view(-1, 1, 8, 8)
    larger = functional.interpolate(images, (size, size), mode="bilinear") if size != 8 else images
    return larger.expand(-1, channels, -1, -1).contiguous(), labels[:1024]


@cache
def digit_rows(length: int = 8) -> tuple[Tensor, Tensor]:
    """Digits as sequences (1797, length, 64 / length) float32, and labels (1797,) int64."""
    pixels, labels = digits()
    return pixels.view(len(pixels), length, -1), labels


@cache
def tokens(length: int = 32) -> tuple[Tensor, Tensor]:
    """Characters (windows, length) int64, and the same shifted by one."""
    return text_windows(length)


def workload(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    loss: Any,
    optimizer: str = "adamw",
    lr: float = 1e-3,
    batch: int = BATCH,
) -> dict[str, Any]:
    """The mapping of the contract; `loss` is a criterion of (output, target)."""
    return {
        "model": model,
        "dataloader": loader(*data, batch),
        "loss_fn": loss,
        "optimizer": make_optimizer(model, optimizer, lr),
    }


def make_optimizer(model: nn.Module, name: str, lr: float) -> torch.optim.Optimizer:
    """Adam, AdamW, SGD, or SGD with momentum 0.9."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "momentum":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name](parameters, lr=lr)


def classify(
    model: nn.Module, size: int = 8, channels: int = 1, optimizer: str = "adamw", lr: float = 1e-3, batch: int = BATCH
) -> dict[str, Any]:
    """Recognise digits in images of that size."""
    return workload(model, digit_images(size, channels), nn.CrossEntropyLoss(), optimizer, lr, batch)


def flat(model: nn.Module, optimizer: str = "adam", lr: float = 1e-3, batch: int = BATCH) -> dict[str, Any]:
    """Recognise digits in vectors of 64 pixels."""
    pixels, labels = digit_rows(1)
    return workload(model, (pixels[:, 0], labels), nn.CrossEntropyLoss(), optimizer, lr, batch)


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits (batch, length, vocabulary)."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def language(model: nn.Module, length: int = 32, lr: float = 1e-3, batch: int = 16) -> dict[str, Any]:
    """Predict each next character of source code."""
    return workload(model, tokens(length), next_token_loss, "adamw", lr, batch)
