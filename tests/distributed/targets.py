"""Small entrypoints that several ranks train."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


class Residual(nn.Module):
    """Odd widths, so that shards are uneven, and one output, so that some are empty."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 15)
        self.blocks = nn.ModuleList(Block(15) for _ in range(3))
        self.last = nn.Linear(15, 1)

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))


def data(samples: int = 192) -> TensorDataset:
    torch.manual_seed(1)
    x = torch.randn(samples, 7)
    return TensorDataset(x, x[:, :1].sin() + 0.5 * x[:, 1:2])


def residual(batch_size: int = 8, shuffle: bool = True, lr: float = 1e-2) -> dict[str, Any]:
    """A training step that calls methods of the model, as a wrapped one would not let it."""
    torch.manual_seed(0)
    model = Residual()

    def training_step(model: Any, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model.last(model.features(batch[0])), batch[1])

    return {
        "model": model,
        "dataloader": DataLoader(data(), batch_size, shuffle=shuffle),
        "training_step": training_step,
        "optimizer": torch.optim.SGD(model.parameters(), lr, momentum=0.9),
    }


class RootOfDistance(nn.Module):
    """The slope of a square root at 0 is infinite: where a sample is all zeros, its loss is finite, its gradient not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 5, bias=False), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        distance = self.first(x).square().sum(1, keepdim=True).sqrt()
        return self.last(distance)


def with_bad_sample(kind: str = "slope", index: Any = 38, batch_size: int = 4) -> dict[str, Any]:
    """Sample 38 is in batch 9: the fifth of rank 1 when two ranks take turns."""
    torch.manual_seed(0)
    x = torch.randn(96, 7)
    y = x[:, :1].sin()
    if kind == "slope":
        x[index] = 0
    elif kind == "data":
        x[index, 2] = torch.nan
    else:
        x[:, 6] = 0  # no gradient for its weights: Adam without eps divides 0 by 0
    model = RootOfDistance() if kind == "slope" else Residual()
    return {
        "model": model,
        "dataloader": DataLoader(TensorDataset(x, y), batch_size),
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.Adam(model.parameters(), 1e-3, eps=0 if kind == "update" else 1e-8),
    }
