"""Healthy convolutional networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import classify
from tests.zoo.layers import Residual, he_normal
from tests.zoo.specimen import healthy


def conv(inputs: int, outputs: int, stride: int = 1, groups: int = 1, size: int = 3, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size but for its stride."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=bias)


def head(width: int, classes: int = 10) -> nn.Sequential:
    """Mean over places, scores."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class BasicBlock(nn.Module):
    """He et al., 2016: two convolutions and a shortcut; `norm` is the kind of normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs, stride), norm(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs), norm(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(conv(inputs, outputs, stride, size=1), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet(per_stage: int, norm: Any = nn.BatchNorm2d, width: int = 12) -> nn.Sequential:
    """Three stages of blocks, as for CIFAR."""
    blocks, inputs = [], width
    for stage in range(3):
        for number in range(per_stage):
            outputs = width * 2**stage
            blocks.append(BasicBlock(inputs, outputs, 2 if stage and not number else 1, norm))
            inputs = outputs
    return he_convolutions(nn.Sequential(conv(1, width), norm(width), nn.ReLU(), *blocks, head(inputs)))


def he_convolutions(model: nn.Sequential) -> nn.Sequential:
    """As torchvision begins: He's initialisation, by the fan-out, for convolutions alone."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


@healthy(quick=True)
def resnet_bn_20() -> dict[str, Any]:
    return classify(resnet(3), 16, optimizer="momentum", lr=0.05)


@healthy()
def resnet_bn_56() -> dict[str, Any]:
    return classify(resnet(9, width=8), 8, optimizer="momentum", lr=0.05)


@healthy()
def resnet_group_norm_20() -> dict[str, Any]:
    return classify(resnet(3, lambda width: nn.GroupNorm(4, width)), 16)


class InvertedResidual(nn.Module):
    """Sandler et al., 2018: wide inside, depthwise, ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.keeps = inputs == outputs and stride == 1
        self.branch = nn.Sequential(
            *(conv(inputs, wide, size=1), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(conv(wide, wide, stride, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(conv(wide, outputs, size=1), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.keeps else self.branch(x)


@healthy(quick=True)
def mobile_net() -> dict[str, Any]:
    sizes = [(8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 16, 2), (16, 16, 1), (16, 16, 1), (16, 24, 1)]
    stem = (conv(1, 8), nn.BatchNorm2d(8), nn.ReLU6())
    model = nn.Sequential(*stem, *(InvertedResidual(*size) for size in sizes), head(24))
    return classify(he_convolutions(model), 16, optimizer="momentum", lr=0.05)


class ConvNeXtBlock(nn.Module):
    """Liu et al., 2022, with LayerScale at 1e-6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = conv(width, width, groups=width, size=7, bias=True)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(functional.gelu(self.wide(y)))).permute(0, 3, 1, 2)


@healthy(quick=True)
def convnext_layer_scale() -> dict[str, Any]:
    stages: list[nn.Module] = [nn.Conv2d(1, 16, 2, 2), nn.GroupNorm(1, 16), *(ConvNeXtBlock(16) for _ in range(3))]
    stages += [
        nn.GroupNorm(1, 16),
        nn.Conv2d(16, 32, 2, 2),
        *(ConvNeXtBlock(32) for _ in range(5)),
        nn.GroupNorm(1, 32),
    ]
    model = nn.Sequential(*stages, head(32))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return classify(model, 16)


def vgg(norm: bool, width: int = 12, dropout: float = 0.0) -> nn.Sequential:
    """Simonyan and Zisserman, 2015: thirteen convolutions and three linear layers."""
    layers: list[nn.Module] = []
    inputs = 1
    for stage, number in enumerate((2, 2, 3, 3, 3)):
        for _ in range(number):
            outputs = width * 2 ** min(stage, 3)
            layers += [conv(inputs, outputs, bias=True), *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]
            inputs = outputs
        layers += [nn.MaxPool2d(2)]
    ends = (nn.Flatten(), nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 64), nn.ReLU())
    return nn.Sequential(*layers, *ends, nn.Linear(64, 10))


@healthy()
def vgg_bn() -> dict[str, Any]:
    return classify(vgg(norm=True, width=8), 32, optimizer="momentum", lr=0.02)


@healthy(quick=True)
def vgg_he() -> dict[str, Any]:
    return classify(he_normal(vgg(norm=False, width=8)), 32, lr=3e-4)


class DenseLayer(nn.Module):
    """Huang et al., 2017: what it makes is added to the channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), conv(inputs, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(functional.relu(self.norm(x)))], 1)


@healthy()
def dense_net() -> dict[str, Any]:
    layers: list[nn.Module] = [conv(1, 16)]
    width = 16
    for _ in range(2):
        for _ in range(5):
            layers, width = [*layers, DenseLayer(width, 8)], width + 8
        layers += [nn.BatchNorm2d(width), nn.ReLU(), conv(width, width // 2, size=1), nn.AvgPool2d(2)]
        width //= 2
    return classify(he_convolutions(nn.Sequential(*layers, head(width))), 8, optimizer="momentum", lr=0.05)


class SqueezeExcitation(nn.Module):
    """Hu et al., 2018: channels are weighed by sigmoid gates."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = conv(width, width), nn.BatchNorm2d(width)
        self.squeeze, self.excite = nn.Linear(width, width // 4), nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        gates = torch.sigmoid(self.excite(functional.relu(self.squeeze(y.mean((2, 3))))))
        return functional.relu(x + y * gates[:, :, None, None])


@healthy()
def squeeze_excitation_net() -> dict[str, Any]:
    blocks = [SqueezeExcitation(24) for _ in range(6)]
    return classify(nn.Sequential(conv(1, 24), nn.BatchNorm2d(24), nn.ReLU(), *blocks, head(24)), 8)


@healthy(quick=True)
def lenet_tanh() -> dict[str, Any]:
    """LeCun et al., 1998, with torch's default initialisation."""
    layers = (conv(1, 6, size=5, bias=True), nn.Tanh(), nn.AvgPool2d(2), conv(6, 16, size=5, bias=True), nn.Tanh())
    ends = (nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh())
    return classify(nn.Sequential(*layers, *ends, nn.Linear(84, 10)), 16)


@healthy()
def small_cnn_default() -> dict[str, Any]:
    """Three convolutions with torch's default initialisation, as in every tutorial."""
    layers = (conv(1, 16, bias=True), nn.ReLU(), conv(16, 32, 2, bias=True), nn.ReLU(), conv(32, 32, 2, bias=True))
    return classify(nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)), 8)


@healthy()
def preactivation_resnet() -> dict[str, Any]:
    """Identity mappings: normalisation and ReLU before each convolution. He et al., 2016, second paper."""

    def branch() -> nn.Sequential:
        halves = [(nn.BatchNorm2d(16), nn.ReLU(), conv(16, 16)) for _ in range(2)]
        return nn.Sequential(*halves[0], *halves[1])

    blocks = [Residual(branch()) for _ in range(12)]
    return classify(nn.Sequential(conv(1, 16), *blocks, nn.BatchNorm2d(16), nn.ReLU(), head(16)), 8)
