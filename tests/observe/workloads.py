"""Small trainings of every kind that recording must neither change nor mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gradcheck_cli.drive.workload import Workload, make_workload


class Mixed(nn.Module):
    """Convolution, batch norm, dropout, attention-free: buffers and random numbers in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.3))
        self.head = nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 5)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.block, self.first(x), use_reentrant=self.reentrant))


class Tied(nn.Module):
    """A sparse embedding would not do here: its weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.out = nn.Embedding(11, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 11)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.rnn(self.embedding(tokens))[0])


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.weight).abs()


class Switching(nn.Module):
    """Two experts that take turns; the third never gets a turn, and one layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 5) for _ in range(3))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.experts[self.calls % 2](self.frozen(x))


def vectors(count: int = 10) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(8, 6, generator=generator), torch.randint(5, (8,), generator=generator)) for _ in range(count)]


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(6)
    return [
        (torch.randn(8, 1, 6, 6, generator=generator), torch.randint(5, (8,), generator=generator)) for _ in range(10)
    ]


def tokens() -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(11, (4, 9), generator=generator) for _ in range(10)]


def next_token_loss(model: nn.Module, batch: Tensor) -> Tensor:
    return functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def classify(
    model: nn.Module, data: Any = None, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> Workload:
    made = optimizer([p for p in model.parameters() if p.requires_grad], lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(made, 0.1, total_iters=8)
    parts = {"model": model, "dataloader": data or vectors(), "loss_fn": functional.cross_entropy}
    return make_workload({**parts, "optimizer": made, "scheduler": schedule})


def language(model: nn.Module) -> Workload:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    parts = {"model": model, "dataloader": tokens(), "training_step": next_token_loss, "optimizer": optimizer}
    return make_workload(parts)


def sparse() -> Workload:
    model = nn.Sequential(nn.EmbeddingBag(11, 6, sparse=True), nn.Linear(6, 11))

    def training_step(model: nn.Module, batch: Tensor) -> Tensor:
        return functional.cross_entropy(model(batch), batch[:, 0])

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return make_workload(
        {"model": model, "dataloader": tokens(), "training_step": training_step, "optimizer": optimizer}
    )


def no_optimizer() -> Workload:
    return make_workload((nn.Linear(6, 5), vectors(), functional.cross_entropy))


def compiled() -> Workload:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
    return classify(torch.compile(model, backend="aot_eager"))  # type: ignore[arg-type]


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mixed": lambda: classify(Mixed(), images()),
    "checkpoint": lambda: classify(Checkpointed(reentrant=False)),
    "reentrant checkpoint": lambda: classify(Checkpointed(reentrant=True)),
    "tied": lambda: language(Tied()),
    "sparse": sparse,
    "complex": lambda: classify(Complex()),
    "switching": lambda: classify(Switching()),
    "no optimizer": no_optimizer,
    "compiled": compiled,
    "parametrized": lambda: classify(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)))),
    "sgd": lambda: classify(nn.Linear(6, 5), optimizer=torch.optim.SGD),
}
