"""A tiny model with its data, and training loops as anybody would write them by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Parts = dict[str, Any]

TINY = '''"""What the entrypoints of the tests are made of."""
import torch
from torch import nn

def net(): return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

def data(batches=3):
    inputs = torch.tensor([[1.0, 1, 1], [1, 0, 1]])
    return [((i + 1) * inputs, torch.ones(2, 1)) for i in range(batches)]

def sgd(model): return torch.optim.SGD(model.parameters(), lr=0.1)

mse = nn.MSELoss()
'''


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Inputs (count, 3) and targets (count, 1), the same each time."""
    inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(5))
    return inputs, inputs.sum(1, keepdim=True)


def batches(count: int, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    inputs, targets = samples(count * size)
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def parts(batch_count: int = 5, lr: float = 0.1) -> Parts:
    """What an entrypoint returns."""
    model = net()
    return {
        "model": model,
        "dataloader": batches(batch_count),
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
    }


def seed(value: int = 0) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def train_by_hand(build: Callable[[], Parts], steps: int, step: Callable[[Parts, Any], None]) -> dict[str, Tensor]:
    """The model's state after `step` was called with `steps` batches, epoch after epoch."""
    seed()
    made = build()
    for _, batch in zip(range(steps), epochs(made["dataloader"]), strict=False):
        step(made, batch)
    return state_of(made)


def epochs(dataloader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from dataloader


def state_of(made: Parts) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in made["model"].state_dict().items()}


def loss_of(made: Parts, batch: Any) -> Tensor:
    inputs, target = batch
    loss: Tensor = made["loss_fn"](made["model"](inputs), target)
    return loss


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name


def plain_step(made: Parts, batch: Any) -> None:
    made["optimizer"].zero_grad()
    loss_of(made, batch).backward()
    made["optimizer"].step()
