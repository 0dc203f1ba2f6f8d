"""Faults around the step itself: accumulation, clipping, optimizers, exceptions, two origins at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional
from torch.optim import SGD, Adam, RMSprop

from tests.nan_corpus.corpus import case


@case(
    phase="forward",
    op="aten::log",
    kind="inf",
    cause="log-of-zero",
    micro_batch=1,
    samples=(1,),
    settings={"accumulate": 2},
)
def fault_in_second_micro_batch() -> dict[str, Any]:
    class LogMel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, energies: Tensor) -> Tensor:
            return torch.relu(self.head(energies.log()))  # origin

    model = LogMel()
    batches = [(torch.rand(2, 6) + 0.1, torch.randint(0, 3, (2,))) for _ in range(4)]
    batches[1][0][1, 2:4] = 0
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(
    phase="backward",
    op="aten::sqrt",
    kind="inf",
    cause="sqrt-at-zero",
    step=1,
    micro_batch=1,
    samples=(0,),
    settings={"accumulate": 2},
)
def gradient_fault_in_second_micro_batch() -> dict[str, Any]:
    """The gradients of the first micro-batch are finite; those of the second are added to them."""

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        anchor, positive = model(batch["anchor"]), model(batch["positive"])
        return torch.mean((anchor - positive).pow(2).sum(dim=1).sqrt())  # origin

    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    batches = [{"anchor": torch.randn(3, 5), "positive": torch.randn(3, 5)} for _ in range(4)]
    batches[3]["positive"][0] = batches[3]["anchor"][0]
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero", settings={"clip": 1.0})
def clipping_one_infinite_gradient() -> dict[str, Any]:
    """One gradient is infinite; clipping makes every other one NaN."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.variance = nn.Parameter(torch.zeros(()))
            self.body = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            std = torch.sqrt(self.variance)  # origin
            return torch.relu(self.body(x)) * (1 + std)

    model = Gate()
    batches = [(torch.randn(6, 4), torch.randint(0, 4, (6,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="loss", op=("aten::nll_loss2d_forward", "aten::nll_loss_forward"), cause="every-label-ignored", step=1)
def every_pixel_ignored() -> dict[str, Any]:
    """The loss is NaN, but each gradient is 0: the weights survive, and nothing but the loss shows it."""

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["image"])
        return functional.cross_entropy(logits, batch["mask"], ignore_index=255)  # origin

    model = nn.Conv2d(1, 3, 3, padding=1)
    masks = torch.randint(0, 3, (3, 2, 4, 4))
    masks[1] = 255
    batches = [{"image": torch.randn(2, 1, 4, 4), "mask": mask} for mask in masks]
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="optimizer", op=("aten::addcdiv_", "aten::_foreach_addcdiv_"), cause="adam-eps-zero")
def rows_spoiled_long_before_their_use() -> dict[str, Any]:
    """Step 0 divides 0 by 0 for every user that it does not see; user 7 comes in step 4."""

    class Recommender(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(8, 3), nn.Linear(5, 3, bias=False)

        def forward(self, pairs: tuple[Tensor, Tensor]) -> Tensor:
            users, items = pairs
            return torch.sum(self.users(users) * self.items(items), dim=1)

    model = Recommender()
    users = [torch.tensor([0, 1, 2])] * 4 + [torch.tensor([1, 7, 2])]
    batches = [((user, torch.rand(3, 5)), torch.randn(3)) for user in users]
    optimizer = RMSprop(model.parameters(), lr=1e-3, eps=0.0)  # origin
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": optimizer}


@case(phase="optimizer", op="aten::_foreach_addcdiv_", cause="adam-eps-zero", step=1)
def foreach_optimizer() -> dict[str, Any]:
    """A bias that the loss no longer reaches has a gradient of exactly 0, and no momentum yet."""

    def training_step(model: nn.ModuleDict, batch: dict[str, Any]) -> Tensor:
        first, second = model["first"](batch["x"]), model["second"](batch["x"])
        share = torch.tensor(batch["share"])
        return functional.mse_loss((1 - share) * first + share * second, batch["y"])

    model = nn.ModuleDict({"first": nn.Linear(3, 1), "second": nn.Linear(3, 1)})
    batches = [{"x": torch.randn(4, 3), "y": torch.randn(4, 1), "share": share} for share in (0.5, 1.0)]
    optimizer = RMSprop(model.parameters(), lr=1e-3, alpha=0.0, eps=0.0, foreach=True)  # origin
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="optimizer", op="aten::_fused_sgd_", kind="inf", cause="update-overflow", step=1)
def fused_optimizer() -> dict[str, Any]:
    """The schedule multiplies the learning rate instead of setting it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    batches = [(torch.randn(4, 3), torch.full((4, 1), 50.0)) for _ in range(3)]
    optimizer = SGD(model.parameters(), lr=1e-3, fused=True)  # origin
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1e41 if epoch else 1.0)
    return {
        "model": model,
        "dataloader": batches,
        "loss_fn": nn.MSELoss(),
        "optimizer": optimizer,
        "scheduler": scheduler,
    }


@case(phase="forward", op="aten::div", cause="normalise-zero-vector", step=1, samples=(2,), error=True)
def normal_rejects_its_mean() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Normal:
            direction = x / x.norm(dim=1, keepdim=True)  # origin
            return Normal(torch.tanh(self.mean(direction)), 0.5)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        states, actions = batch
        return -torch.mean(model(states).log_prob(actions))

    model = Policy()
    batches = [(torch.randn(4, 3), torch.randn(4, 2)) for _ in range(2)]
    batches[1][0][2] = 0
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::exp", kind="inf", cause="naive-softmax", samples=(1,), error=True)
def bce_rejects_its_input() -> dict[str, Any]:
    class TwoWay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            weights = torch.exp(self.fc(x))  # origin
            return weights[:, 1] / weights.sum(dim=1)

    model = TwoWay()
    x = torch.randn(3, 2)
    x[1] *= 1e4
    batches = [(x, torch.tensor([0.0, 1.0, 1.0]))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.BCELoss(), "optimizer": SGD(model.parameters(), 0.1)}


@case(phase="forward", op="aten::sqrt", cause="sqrt-of-negative", step=1, error=True)
def multinomial_rejects_its_weights() -> dict[str, Any]:
    """Negatives are drawn by the root of their counts, one of which has been corrected below 0."""

    class SkipGram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors = nn.Embedding(5, 3)

        def forward(self, words: Tensor, context: Tensor, counts: Tensor) -> Tensor:
            weights = counts.sqrt()  # origin
            negatives = torch.multinomial(weights, len(words), replacement=True)
            near, far = self.vectors(context), self.vectors(negatives)
            return functional.triplet_margin_loss(self.vectors(words), near, far)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = model(batch["words"], batch["context"], batch["counts"])
        return loss

    model = SkipGram()
    words = {"words": torch.tensor([0, 1, 2]), "context": torch.tensor([1, 2, 3])}
    counts = [torch.tensor([5.0, 3.0, 2.0, 1.0, 1.0]), torch.tensor([4.0, 3.0, -1.0, 1.0, 1.0])]
    batches = [{**words, "counts": count} for count in counts]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}
