"""Selections done right, repairs on purpose, and memory that is read before anything is in it: all harmless."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.nan_corpus.corpus import control


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic algorithms: torch fills what it allocates with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@control()
def allocators() -> dict[str, Any]:
    """Memory from `empty` holds NaN until something is written into it."""

    class Assemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            noise = torch.empty(len(x), 1).uniform_(-0.1, 0.1)
            scale = torch.empty_like(noise).fill_(0.5)
            mean = torch.mean(x, dim=1, keepdim=True, out=x.new_empty(len(x), 1))
            copied = x.new_empty(len(x), 2).copy_(x[:, :2])
            copied.resize_(len(x), 2)
            return torch.relu(self.fc(torch.cat([noise * scale, mean, copied], dim=1)))

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with deterministic():
            return functional.cross_entropy(model(batch[0]), batch[1])

    model = Assemble()
    batches = [(torch.randn(4, 3), torch.randint(0, 2, (4,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def parts_of_empty_memory() -> dict[str, Any]:
    """The derivative of a write into a part of uninitialised memory reads the rest of it."""

    class TwoStreams(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slow, self.fast = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            joined = torch.empty(len(x), 6)
            joined[:, :2] = self.slow(x)
            joined[:, 2:4] = self.fast(x)
            joined[:, 4:].copy_(x[:, :2])
            return joined

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with deterministic():
            functional.mse_loss(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
        return functional.l1_loss(model(batch[0]), batch[1])

    model = TwoStreams()
    batches = [(torch.randn(5, 3), torch.randn(5, 6))]
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def unused_memory() -> dict[str, Any]:
    """A table of which only the rows that were written are read."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 3), nn.Linear(3, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            rows = torch.arange(1, 6)
            table = torch.full((9, 3), float("nan"))
            table = table.index_copy(0, rows, self.embed(rows))
            return torch.relu(self.head(table[tokens].mean(1)))

    model = Packed()
    batches = [(torch.tensor([[1, 2], [2, 5], [5, 1]]), torch.tensor([0, 1, 1]))]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@control()
def both_branches_made_safe() -> dict[str, Any]:
    """The input of log is made harmless before, where its output is not selected after."""

    class SafeLog(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(3, 5), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.fc(x))
            positive = hidden > 0
            logs = torch.log(torch.where(positive, hidden, 1.0))
            return torch.squeeze(self.head(torch.where(positive, logs, -5.0)), 1)

    model = SafeLog()
    batches = [(torch.randn(4, 3), torch.randn(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 1e-4)}


@control()
def unselected_nan() -> dict[str, Any]:
    """The root of a negative number of the data, in a branch that is not taken; its gradient goes nowhere."""

    class Signed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            scaled = self.fc(x)
            roots = torch.where(x[:, :2] > 0, x[:, :2].sqrt(), x[:, :2])
            ranked = torch.stack([roots / 0.0, scaled, roots], dim=1)[:, 1:]
            return torch.tanh(ranked.sum(1))

    model = Signed()
    batches = [(torch.randn(6, 3), torch.randint(0, 2, (6,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@control()
def padding_of_nan() -> dict[str, Any]:
    """Series of different lengths are padded with NaN, which is taken out before use."""

    class Series(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, values: Tensor, known: Tensor) -> Tensor:
            filled = values.masked_fill(~known, 0.0)
            states, _ = self.rnn(torch.stack([filled, known.float()], dim=-1))
            return torch.squeeze(self.head(states[:, -1]), 1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        known = ~batch["values"].isnan()
        level = batch["values"].nanmean(dim=1)
        errors = model(batch["values"], known) - level
        return torch.mean(errors[~batch["target"].isnan()].square())

    model = Series()
    values = torch.randn(4, 6)
    values[0, 3:] = values[2, 5] = float("nan")
    batches = [{"values": values, "target": torch.tensor([0.5, float("nan"), 1.0, 2.0])}]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def weight_of_an_absent_class() -> dict[str, Any]:
    """Classes are weighted by 1 / count in the batch, where some do not occur."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        weight = 1 / torch.bincount(batch[1], minlength=4).float()
        return functional.cross_entropy(model(batch[0]), batch[1], weight=weight)

    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4))
    batches = [(torch.randn(5, 3), torch.tensor([0, 0, 1, 3, 3]))]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def gradient_repaired_by_hook() -> dict[str, Any]:
    """The infinite slope is known, and a hook takes it away."""

    class Magnitude(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            energy = self.fc(x).square().sum(1)
            energy.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
            return torch.sqrt(energy)

    model = Magnitude()
    x = torch.randn(4, 3)
    x[2] = 0
    batches = [(x, torch.rand(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}
