"""Healthy networks of linear layers."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import digit_rows, flat, loader, make_optimizer
from tests.zoo.layers import Residual, he_normal, mlp, xavier_normal
from tests.zoo.specimen import healthy


@healthy(quick=True)
def relu_mlp_he_20() -> dict[str, Any]:
    return flat(he_normal(mlp(20, 128, nn.ReLU)), lr=3e-4)


@healthy(quick=True)
def tanh_mlp_xavier_20() -> dict[str, Any]:
    return flat(xavier_normal(mlp(20, 128, nn.Tanh), gain=5 / 3), lr=3e-4)


@healthy()
def tanh_mlp_default_3() -> dict[str, Any]:
    return flat(mlp(3, 64, nn.Tanh))


@healthy()
def relu_mlp_default_3() -> dict[str, Any]:
    return flat(mlp(3, 128, nn.ReLU), "sgd", 0.1)


@healthy()
def sigmoid_classifier_1() -> dict[str, Any]:
    return flat(mlp(1, 64, nn.Sigmoid), "adam", 3e-3)


@healthy()
def logistic_regression() -> dict[str, Any]:
    return flat(nn.Linear(64, 10), "sgd", 0.1)


@healthy()
def selu_mlp_lecun_16() -> dict[str, Any]:
    model = mlp(16, 128, nn.SELU)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(module.bias)
    return flat(model, "adam", 3e-4)


@healthy(quick=True)
def batch_norm_mlp_10() -> dict[str, Any]:
    layers = [layer for _ in range(9) for layer in (nn.Linear(96, 96), nn.BatchNorm1d(96), nn.ReLU())]
    return flat(nn.Sequential(nn.Linear(64, 96), *layers, nn.Linear(96, 10)))


@healthy()
def residual_mlp_24() -> dict[str, Any]:
    """Residual blocks with LayerNorm on the branch."""

    def branch() -> nn.Module:
        return nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))

    blocks = [Residual(branch()) for _ in range(24)]
    return flat(nn.Sequential(nn.Linear(64, 64), *blocks, nn.LayerNorm(64), nn.Linear(64, 10)), "adamw", 1e-3)


@healthy()
def dropout_mlp() -> dict[str, Any]:
    layers = [layer for _ in range(3) for layer in (nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5))]
    return flat(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), *layers, nn.Linear(128, 10)))


class PointNet(nn.Module):
    """A set of points (batch, points, 3), a shared network, the maximum over points."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Linear(3, 64),
            nn.LayerNorm(64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.LayerNorm(128),
            nn.ReLU(),
            nn.Linear(128, 256),
        )
        self.head = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        places = torch.linspace(-1, 1, 8)
        grid = torch.cartesian_prod(places, places).expand(len(pixels), -1, -1)
        points = torch.cat([grid, pixels.flatten(1)[:, :, None]], 2)
        return self.head(self.shared(points).amax(1))


@healthy()
def point_net() -> dict[str, Any]:
    return flat(PointNet(), "adam", 3e-3)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 32))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return functional.pairwise_distance(self.encoder(left), self.encoder(right))


@healthy()
def siamese() -> dict[str, Any]:
    """Contrastive loss on pairs of digits, equal or not. Hadsell et al., 2006."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels, labels = batch
        left, right = pixels[:, 0].chunk(2)
        same = (labels[: len(left)] == labels[len(left) :]).float()
        distance = model(left, right)
        return (same * distance**2 + (1 - same) * (1 - distance).clamp(min=0) ** 2).mean()

    model = Siamese()
    data = loader(*digit_rows(1), 64)
    return {
        "model": model,
        "dataloader": data,
        "training_step": training_step,
        "optimizer": make_optimizer(model, "adam", 1e-3),
    }


class GraphNet(nn.Module):
    """Graph convolutions over a fixed graph. Kipf and Welling, 2017."""

    def __init__(self, adjacency: Tensor, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency)
        sizes = [64] + [width] * (depth - 1) + [10]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        xavier_normal(self)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            features = functional.relu(self.adjacency @ layer(features))
        return self.adjacency @ self.layers[-1](features)


@healthy()
def graph_network() -> dict[str, Any]:
    """Nodes are digits, each joined with its eight nearest; the whole graph is one batch."""
    rows, labels = digit_rows(1)
    pixels, labels = rows[:256, 0], labels[:256]
    nearest = torch.cdist(pixels, pixels).topk(9, largest=False).indices
    joined = torch.zeros(256, 256).scatter_(1, nearest, 1.0)
    joined = ((joined + joined.T) > 0).float()
    degree = joined.sum(1).rsqrt()
    model = GraphNet(degree[:, None] * joined * degree, 64, 3)
    data = [(pixels, labels)]
    return {
        "model": model,
        "dataloader": data,
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": make_optimizer(model, "adam", 5e-3),
    }


class LowRank(nn.Module):
    """A frozen linear layer plus B A, where B begins at zero. Hu et al., 2021."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Linear(frozen.in_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.up(self.down(x))


@healthy()
def lora_mlp() -> dict[str, Any]:
    layers = [layer for _ in range(4) for layer in (LowRank(nn.Linear(128, 128), 4), nn.LayerNorm(128), nn.GELU())]
    return flat(nn.Sequential(LowRank(nn.Linear(64, 128), 4), nn.GELU(), *layers, nn.Linear(128, 10)))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.decoder(self.encoder(pixels))


def reconstruct(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    pixels = batch[0].flatten(1)
    return functional.mse_loss(model(pixels), pixels)


@healthy()
def autoencoder() -> dict[str, Any]:
    model = Autoencoder()
    data = loader(*digit_rows(1))
    return {
        "model": model,
        "dataloader": data,
        "training_step": reconstruct,
        "optimizer": make_optimizer(model, "adam", 1e-3),
    }


class Variational(nn.Module):
    """Kingma and Welling, 2014; pixels as probabilities through a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid())

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(pixels).chunk(2, -1)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(drawn), mean, log_variance


@healthy()
def variational_autoencoder() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        pixels = batch[0].flatten(1)
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        made, mean, log_variance = model(pixels)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        return functional.binary_cross_entropy(made, pixels, reduction="sum") / len(pixels) + divergence

    model = Variational()
    data = loader(*digit_rows(1))
    return {
        "model": model,
        "dataloader": data,
        "training_step": training_step,
        "optimizer": make_optimizer(model, "adam", 1e-3),
    }
