"""Broken: signals and gradients that die out or blow up on their way through the layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.attention_models import HEADS, WIDTH, PatchNet, causal
from tests.zoo.data import VOCABULARY, classify, digit_rows, flat, language, make_optimizer, workload
from tests.zoo.image_models import conv, head, vgg
from tests.zoo.layers import (
    Attention,
    LanguageModel,
    PostNormBlock,
    Residual,
    feed_forward,
    he_normal,
    mlp,
    normal,
    reset,
    xavier_normal,
)
from tests.zoo.specimen import broken


@broken("GC101", quick=True)
def deep_sigmoid() -> dict[str, Any]:
    """Each layer multiplies the gradient by at most a quarter."""
    return flat(mlp(12, 96, nn.Sigmoid), "sgd", 0.1)


@broken("GC101", "GC601", quick=True)
def tanh_normal_001() -> dict[str, Any]:
    return flat(normal(mlp(12, 96, nn.Tanh), 0.01), "sgd", 0.1)


@broken("GC101", "GC601")
def relu_normal_001() -> dict[str, Any]:
    return flat(normal(mlp(10, 128, nn.ReLU), 0.01), "sgd", 0.1)


@broken("GC101", "GC601")
def relu_default_20() -> dict[str, Any]:
    """torch's default is a sixth of He's variance: after twenty layers nothing is left but biases."""
    return flat(mlp(20, 128, nn.ReLU), "sgd", 0.1)


@broken("GC101", "GC601")
def relu_xavier_40() -> dict[str, Any]:
    """Xavier's forgets that ReLU halves the variance."""
    return flat(xavier_normal(mlp(40, 128, nn.ReLU)), "sgd", 0.05)


@broken("GC101", "GC601", quick=True)
def vgg_default() -> dict[str, Any]:
    """No normalisation, torch's default initialisation."""
    return classify(vgg(norm=False, width=8), 32, optimizer="momentum", lr=0.02)


@broken("GC102", "GC601", quick=True)
def relu_three_times_he() -> dict[str, Any]:
    return flat(he_normal(mlp(16, 128, nn.ReLU), 3.0))


@broken("GC102", "GC601")
def relu_normal_1() -> dict[str, Any]:
    return flat(normal(mlp(6, 96, nn.ReLU), 1.0))


@broken("GC102", "GC601")
def relu_uniform_positive() -> dict[str, Any]:
    """torch.rand for weights: no sign ever cancels."""
    return flat(reset(mlp(6, 96, nn.ReLU), nn.init.uniform_))


@broken("GC102", "GC602", quick=True)
def tanh_normal_1() -> dict[str, Any]:
    return flat(normal(mlp(10, 128, nn.Tanh), 1.0), "sgd", 0.01)


@broken("GC602", quick=True)
def sigmoid_raw_pixels() -> dict[str, Any]:
    """Pixels from 0 to 255 into a sigmoid layer."""
    pixels, labels = digit_rows(1)
    raw = (pixels[:, 0] - pixels.min()) * 255 / (pixels.max() - pixels.min())
    model = xavier_normal(mlp(4, 96, nn.Sigmoid))
    return workload(model, (raw, labels), nn.CrossEntropyLoss(), "sgd", 0.1)


@broken("GC602")
def tanh_ten_times_xavier() -> dict[str, Any]:
    return flat(xavier_normal(mlp(8, 128, nn.Tanh), 10.0), "sgd", 0.01)


@broken("GC602")
def hardtanh_large_weights() -> dict[str, Any]:
    return flat(xavier_normal(mlp(8, 128, nn.Hardtanh), 8.0), "sgd", 0.01)


@broken("GC603", "GC104", quick=True)
def dead_by_bias() -> dict[str, Any]:
    """Biases of -10 before ReLU."""
    return flat(
        reset(mlp(4, 96, nn.ReLU), lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), -10.0), "sgd", 0.1
    )


@broken("GC609")
def dead_by_large_steps() -> dict[str, Any]:
    """Pixels from 0 to 16 and a learning rate of 0.1: within a few steps most units are below zero, for good."""
    pixels, labels = digit_rows(1)
    raw = (pixels[:, 0] - pixels.min()) * 16 / (pixels.max() - pixels.min())
    return workload(he_normal(mlp(4, 128, nn.ReLU)), (raw, labels), nn.CrossEntropyLoss(), "adam", 0.1)


@broken("GC603")
def dead_by_one_batch() -> dict[str, Any]:
    """One batch that was not normalised kills most units; everything before and after is in order."""
    pixels, labels = digit_rows(1)
    batches = [(one.clone(), label) for one, label in zip(pixels[:, 0].split(64), labels.split(64), strict=False)]
    batches[3][0].mul_(100)
    model = he_normal(mlp(4, 128, nn.ReLU))
    optimizer = make_optimizer(model, "momentum", 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@broken("GC603")
def dead_channels() -> dict[str, Any]:
    """One convolution whose biases were loaded from somewhere else."""
    layers = (
        conv(1, 16, bias=True),
        nn.ReLU(),
        conv(16, 32, bias=True),
        nn.ReLU(),
        conv(32, 32, 2, bias=True),
        nn.ReLU(),
    )
    model = he_normal(nn.Sequential(*layers, head(32)))
    nn.init.constant_(model[2].bias[:29], -20.0)
    return classify(model, 8, batch=64)


@broken("GC608", "GC102", quick=True)
def residual_without_norm() -> dict[str, Any]:
    """He's initialisation on every branch doubles the stream's variance with every block. Zhang et al., 2019."""
    blocks = [Residual(he_normal(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)))) for _ in range(24)]
    return flat(nn.Sequential(nn.Linear(64, 64), *blocks, nn.Linear(64, 10)))


@broken("GC608", "GC102")
def residual_cnn_without_norm() -> dict[str, Any]:
    """A ResNet whose normalisation was taken out."""

    def branch() -> nn.Sequential:
        return he_normal(nn.Sequential(conv(16, 16), nn.ReLU(), conv(16, 16)))

    return classify(nn.Sequential(conv(1, 16), *(Residual(branch()) for _ in range(20)), head(16)), 8)


class Amplified(nn.Module):
    """gain x (x + branch(norm(x)))."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.norm, self.feed, self.gain = nn.LayerNorm(width), feed_forward(width), gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x + self.feed(self.norm(x)))


@broken("GC608")
def residual_with_gain() -> dict[str, Any]:
    """A factor on the stream in every block, meant to help: 1.5 to the 24th."""
    blocks = [Amplified(64, 1.5) for _ in range(24)]
    return flat(nn.Sequential(nn.Linear(64, 64), *blocks, nn.LayerNorm(64), nn.Linear(64, 10)), "adamw", 1e-3)


class Bare(nn.Module):
    """Attention and an MLP without shortcuts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, HEADS)
        self.norm2, self.feed = nn.LayerNorm(width), feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.feed(self.norm2(self.attention(self.norm1(x))))


@broken("GC605", quick=True)
def transformer_without_residuals() -> dict[str, Any]:
    """Attention alone averages tokens until they are all the same. Dong et al., 2021."""
    return classify(PatchNet([Bare(WIDTH) for _ in range(12)], WIDTH))


@broken("GC605")
def post_norm_24() -> dict[str, Any]:
    """Without warm-up. Xavier's initialisation, as the original."""
    blocks = [xavier_normal(PostNormBlock(WIDTH, Attention(WIDTH, HEADS))) for _ in range(24)]
    return classify(PatchNet(blocks, WIDTH))


@broken("GC605")
def post_norm_36_lm() -> dict[str, Any]:
    blocks = [xavier_normal(PostNormBlock(WIDTH, causal())) for _ in range(36)]
    model = LanguageModel(blocks, WIDTH, VOCABULARY, 16)
    xavier_normal(model.blocks)
    return language(model, 16, batch=8)


@broken("GC605")
def graph_over_smoothed() -> dict[str, Any]:
    """Tokens that are averaged with all others in every block. Li et al., 2018."""

    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return functional.gelu(self.layer(self.norm(0.3 * x + 0.7 * x.mean(1, keepdim=True))))

    return classify(PatchNet([Averaging() for _ in range(8)], WIDTH))
