"""Held out while nan-trace was made, from reports of users: sparse and compiled parts, checkpoints, optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint_sequential

from tests.nan_corpus.corpus import case

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean squared error."""
    return functional.mse_loss(model(batch[0]), batch[1])


@case(phase="loss", op="aten::log", cause="log-of-sigmoid", kind="inf", samples=(1,))
def negative_sampling_of_sparse_words() -> dict[str, Any]:
    class Word2Vec(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = (nn.Embedding(8, 4, sparse=True) for _ in range(2))
            with torch.no_grad():
                self.inner.weight[5], self.outer.weight[2] = 8.0, 8.0

        def forward(self, word: Tensor, other: Tensor) -> Any:
            return (self.inner(word) * self.outer(other)).sum(-1)

    def training_step(model: nn.Module, batch: Batch) -> Tensor:
        near, far = model(batch["word"], batch["near"]), model(batch["word"], batch["far"])
        return -(functional.logsigmoid(near) + torch.log(torch.sigmoid(-far))).mean()  # origin

    batch = {"word": torch.tensor([1, 5, 3]), "near": torch.tensor([0, 7, 1]), "far": torch.tensor([4, 2, 6])}
    model = Word2Vec()
    optimizer = torch.optim.SparseAdam(list(model.parameters()), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="loss", op="aten::div", cause="zero-divided-by-zero", samples=(1,))
def compiled_overlap_of_empty_boxes() -> dict[str, Any]:
    @torch.compile(backend="eager")
    def overlap(a: Tensor, b: Tensor) -> Tensor:
        both = (torch.min(a[:, 1], b[:, 1]) - torch.max(a[:, 0], b[:, 0])).clamp(min=0)
        either = (a[:, 1] - a[:, 0]) + (b[:, 1] - b[:, 0]) - both
        return both / either  # origin

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        start, length = model(batch[0]).unbind(1)
        return 1 - overlap(torch.stack((start, start + torch.relu(length)), 1), batch[1]).mean()

    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.0, 2.0]))
    x = torch.rand(3, 3)
    x[1] = torch.linalg.lstsq(model.weight.detach(), torch.tensor([[0.0], [-9.0]])).solution[:, 0]
    return train(model, [(x, torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.0, 2.0]]))], training_step)


@case(phase="forward", op="aten::exp", cause="exp-overflow", kind="inf", samples=(0,))
def segment_of_a_checkpointed_sequential() -> dict[str, Any]:
    class Exponential(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.exp()  # origin

    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = nn.Linear(2, 3)
            nn.init.constant_(first.weight, 1.0)
            self.layers = nn.Sequential(first, nn.ReLU(inplace=True), Exponential(), nn.Linear(3, 1))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint_sequential(self.layers, 2, x, use_reentrant=False)  # type: ignore[no-untyped-call]
            return torch.squeeze(out, 1)

    x = torch.rand(3, 2)
    x[0] = 60.0
    return train(Tower(), [(x, torch.rand(3))], regress)


@case(phase="optimizer", op=("aten::addcdiv_", "aten::_foreach_addcdiv_", "aten::addcdiv"), cause="adam-eps-zero")
def inner_optimizer_without_eps() -> dict[str, Any]:
    """The critic learns inside the step; one of its inputs is always 0, and the actor meets the spoiled critic."""
    actor, critic = nn.Linear(3, 2), nn.Linear(5, 1)
    inner = torch.optim.Adam(critic.parameters(), 1e-3, eps=0.0)  # origin

    def training_step(model: nn.ModuleDict, batch: Batch) -> Any:
        state = batch["state"]
        value = model["critic"](torch.cat((state, model["actor"](state).detach()), 1)).squeeze(1)
        inner.zero_grad()
        functional.mse_loss(value, batch["return"]).backward()  # type: ignore[no-untyped-call]
        inner.step()
        return -model["critic"](torch.cat((state, model["actor"](state)), 1)).mean()

    batch = {"state": torch.randn(4, 3), "return": torch.randn(4)}
    batch["state"][:, 1] = 0
    model = nn.ModuleDict({"actor": actor, "critic": critic})
    outer = torch.optim.Adam(actor.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": outer}


@case(phase="optimizer", op=("aten::add_", "aten::_foreach_add_"), step=2, cause="learning-rate-nonfinite")
def cosine_schedule_without_a_decay_phase() -> dict[str, Any]:
    warmup = total = 2

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = torch.tensor(step - warmup) / (total - warmup)
        return (0.5 * (1 + torch.cos(torch.pi * progress))).item()

    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)  # origin
    return {
        "model": model,
        "dataloader": [(torch.randn(4, 3), torch.randn(4, 1))],
        "training_step": regress,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
    }


@case(phase="optimizer", op=("aten::sqrt_", "aten::_foreach_sqrt_", "aten::sqrt"), cause="centered-variance-negative")
def centered_rmsprop_without_memory() -> dict[str, Any]:
    """With alpha 0 the variance is g * g - g * g, which rounding makes negative."""
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3, alpha=0.0, centered=True)  # origin
    batches = [(torch.randn(8, 6), torch.randn(8, 1))]
    return {"model": model, "dataloader": batches, "training_step": regress, "optimizer": optimizer}
