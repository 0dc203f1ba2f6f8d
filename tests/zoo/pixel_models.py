"""Healthy convolutional networks that make or condition images, or tell real ones from made ones."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.data import digit_images, loader, make_optimizer
from tests.zoo.image_models import conv, head
from tests.zoo.specimen import healthy


class FilmBlock(nn.Module):
    """Perez et al., 2018: a condition scales and shifts the channels."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.conv, self.norm = conv(width, width), nn.BatchNorm2d(width, affine=False)
        self.film = nn.Linear(condition, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, 1)
        return x + functional.relu((1 + scale) * self.norm(self.conv(x)) + shift)


class FilmNet(nn.Module):
    """Is this the digit that was asked for?"""

    def __init__(self) -> None:
        super().__init__()
        self.question, self.stem = nn.Embedding(10, 16), conv(1, 16)
        self.blocks = nn.ModuleList(FilmBlock(16, 16) for _ in range(4))
        self.head = head(16, 1)

    def forward(self, images: Tensor, asked: Tensor) -> Tensor:
        x, condition = self.stem(images), self.question(asked)
        for block in self.blocks:
            x = block(x, condition)
        return self.head(x)[:, 0]


@healthy()
def film() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        asked = torch.where(torch.rand(len(labels)) < 0.5, labels, torch.randint(0, 10, labels.shape))
        return functional.binary_cross_entropy_with_logits(model(images, asked), (asked == labels).float())

    model = FilmNet()
    data, adam = loader(*digit_images(8)), make_optimizer(model, "adam", 2e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adam}


class UNet(nn.Module):
    """Ronneberger et al., 2015: down, up, and across."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        sizes = [width, 2 * width, 4 * width]
        self.stem = self.stage(1, width)
        self.down = nn.ModuleList(self.stage(a, b) for a, b in itertools.pairwise(sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in itertools.pairwise(sizes))
        self.merge = nn.ModuleList(self.stage(2 * a, a) for a in sizes[:-1])
        self.last = nn.Conv2d(width, 1, 1)

    @staticmethod
    def stage(inputs: int, outputs: int) -> nn.Sequential:
        first = (conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU())
        return nn.Sequential(*first, conv(outputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.stem(x)]
        for stage in self.down:
            kept.append(stage(functional.max_pool2d(kept[-1], 2)))
        x = kept.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(torch.cat([up(x), kept.pop()], 1))
        return self.last(x)


@healthy()
def unet() -> dict[str, Any]:
    """Which pixels were ink, from a noisy image."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images = batch[0]
        scores = model(images + 0.5 * torch.randn_like(images))
        return functional.binary_cross_entropy_with_logits(scores, (images > 0).float())

    model = UNet()
    data, adam = loader(*digit_images(16)), make_optimizer(model, "adam", 1e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adam}


@healthy(quick=True)
def dcgan_discriminator() -> dict[str, Any]:
    """Radford et al., 2016: N(0, 0.02), LeakyReLU, real digits against images of smoothed noise."""
    widths = (1, 16, 32, 64)
    stages = [
        (nn.Conv2d(a, b, 4, 2, 1, bias=False), *([nn.BatchNorm2d(b)] if a > 1 else []), nn.LeakyReLU(0.2))
        for a, b in itertools.pairwise(widths)
    ]
    model = nn.Sequential(*(layer for stage in stages for layer in stage), nn.Conv2d(64, 1, 4), nn.Flatten())
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        real = batch[0]
        made = functional.interpolate(torch.randn(len(real), 1, 8, 8), (32, 32), mode="bilinear")
        on_real, on_made = model(real), model(made)
        return functional.softplus(-on_real).mean() + functional.softplus(on_made).mean()

    adam = torch.optim.Adam(model.parameters(), 2e-4, betas=(0.5, 0.999))
    return {"model": model, "dataloader": loader(*digit_images(32)), "training_step": training_step, "optimizer": adam}


@healthy()
def conv_autoencoder() -> dict[str, Any]:
    down = (nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
    up = (nn.ConvTranspose2d(32, 16, 2, 2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, 2))
    model = nn.Sequential(*down, nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.ReLU(), *up)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return functional.mse_loss(model(batch[0]), batch[0])

    data, adam = loader(*digit_images(16)), make_optimizer(model, "adam", 1e-3)
    return {"model": model, "dataloader": data, "training_step": training_step, "optimizer": adam}
