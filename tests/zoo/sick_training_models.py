"""Broken: steps of the wrong size, outputs that say nothing, gradients that are mostly noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.attention_models import HEADS, WIDTH, PatchNet
from tests.zoo.data import classify, digit_rows, flat, workload
from tests.zoo.image_models import conv, head
from tests.zoo.layers import Attention, PreNormBlock, he_normal, mlp
from tests.zoo.specimen import broken


@broken("GC609", quick=True)
def sgd_lr_1000() -> dict[str, Any]:
    return flat(he_normal(mlp(3, 96, nn.ReLU)), "sgd", 1e3)


@broken("GC609")
def adam_lr_1() -> dict[str, Any]:
    return classify(PatchNet([PreNormBlock(WIDTH, Attention(WIDTH, HEADS)) for _ in range(3)], WIDTH), lr=1.0)


@broken("GC609")
def cnn_adam_lr_01() -> dict[str, Any]:
    """A hundred times the usual learning rate of Adam."""
    layers = (conv(1, 16), nn.BatchNorm2d(16), nn.ReLU(), conv(16, 32, 2), nn.BatchNorm2d(32), nn.ReLU())
    return classify(nn.Sequential(*layers, head(32)), 8, optimizer="adam", lr=0.3)


@broken("GC609", quick=True)
def sgd_lr_1e_12() -> dict[str, Any]:
    return flat(he_normal(mlp(3, 96, nn.ReLU)), "sgd", 1e-12)


@broken("GC609")
def adam_lr_1e_10() -> dict[str, Any]:
    return flat(he_normal(mlp(3, 96, nn.ReLU)), "adam", 1e-10)


class Deaf(nn.Module):
    """The inputs are multiplied by a gate that is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(2, 64, nn.ReLU)
        self.register_buffer("gate", torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.gate * x)


@broken("GC613", quick=True)
def input_multiplied_by_zero() -> dict[str, Any]:
    return flat(Deaf())


class WrongDimension(nn.Module):
    """Softmax over the batch, then log of its mean over the batch: every row gets the same scores."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(2, 64, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean(0, keepdim=True).expand(len(x), -1)


@broken("GC613")
def mean_over_the_batch() -> dict[str, Any]:
    return flat(WrongDimension())


@broken("GC613", "GC603")
def last_relu_dead() -> dict[str, Any]:
    """A ReLU behind the last layer, whose biases begin below zero."""
    model = nn.Sequential(mlp(2, 64, nn.ReLU), nn.ReLU())
    nn.init.constant_(model[0][-1].bias, -10.0)
    return flat(model)


@broken("GC613")
def one_class_only() -> dict[str, Any]:
    """A bias of 30 on one class, left over from another task; the learning rate cannot move it."""
    model = mlp(2, 64, nn.ReLU)
    with torch.no_grad():
        model[-1].bias[3] = 30.0
    return flat(model, "adam", 1e-4)


@broken("GC613")
def softmax_of_one_score() -> dict[str, Any]:
    """Softmax over a single output is always 1."""

    def even(scores: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy(scores[:, 0].clamp(1e-6, 1 - 1e-6), (labels % 2 == 0).float())

    pixels, labels = digit_rows(1)
    model = nn.Sequential(mlp(2, 64, nn.ReLU, outputs=1), nn.Softmax(-1))
    return workload(model, (pixels[:, 0], labels), even, "adam")


@broken("GC610", severity="info", quick=True, steps=200, probe_every=2)
def batches_of_two() -> dict[str, Any]:
    """Labels without meaning, two examples at a time: nearly all of the gradient is noise."""
    pixels, labels = digit_rows(1)
    shuffled = labels[torch.randperm(len(labels))]
    return workload(mlp(2, 64, nn.ReLU), (pixels[:, 0], shuffled), nn.CrossEntropyLoss(), "adam", batch=2)


@broken("GC611", quick=True)
def gradients_times_1024() -> dict[str, Any]:
    """A loss scale that was never divided out."""
    model = he_normal(mlp(2, 64, nn.ReLU))
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: 1024 * gradient)
    return flat(model)


class Halved(torch.autograd.Function):
    """ReLU whose backward forgets a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 0.25 * gradient * (ctx.saved_tensors[0] > 0)


class HalvedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Halved.apply(x)


@broken("GC611")
def wrong_backward() -> dict[str, Any]:
    return flat(he_normal(mlp(3, 64, HalvedReLU)))


def regress(model: nn.Module, spoil: int, factor: float) -> dict[str, Any]:
    """Predict the mean of the last rows from the whole digit; batch `spoil` has one target that is far off."""
    pixels, _ = digit_rows(1)
    batches = []
    for number, batch in enumerate(pixels[:1024, 0].split(32)):
        target = batch[:, 32:].mean(1, keepdim=True)
        target[5] *= factor if number == spoil else 1.0
        batches.append((batch, target))
    return {
        "model": model,
        "dataloader": batches,
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.Adam(model.parameters()),
    }


@broken("GC612", quick=True)
def one_broken_target() -> dict[str, Any]:
    """A target in the wrong unit, in batch 17."""
    return regress(he_normal(mlp(2, 64, nn.ReLU, outputs=1)), 17, 1000.0)


@broken("GC612")
def one_broken_input() -> dict[str, Any]:
    """An image of the wrong scale, in batch 13."""
    pixels, labels = digit_rows(1)
    batches = [(one.clone(), label) for one, label in zip(pixels[:1024, 0].split(32), labels.split(32), strict=False)]
    batches[13][0][7] *= 300
    model = he_normal(mlp(2, 64, nn.ReLU))
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": adam}
