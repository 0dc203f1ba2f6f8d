"""Faults in optimizer.step(): loss and gradients are finite, the update is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss

from tests.nan_corpus.corpus import case

ADDCDIV = ("aten::addcdiv_", "aten::_foreach_addcdiv_")


@case(phase="optimizer", op=ADDCDIV, cause="adam-eps-zero")
def adam_without_eps_and_a_dead_feature() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(16, 4)
    x[:, 3] = 0
    batches = [(x, torch.randint(0, 2, (16,)))]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=0.0)  # origin
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="optimizer", op="aten::_foreach_addcdiv_", cause="adam-eps-zero", step=2)
def head_that_gets_no_signal() -> dict[str, Any]:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.main, self.auxiliary = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.tanh(self.trunk(x))
            return self.main(features), self.auxiliary(features)

    def training_step(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        logits, value = model(batch["x"])
        loss = cross_entropy(logits, batch["y"])
        if batch["auxiliary_weight"] is not None:
            loss = loss + batch["auxiliary_weight"] * value.mean()
        return loss

    model = TwoHeads()
    weights = (None, None, 0.0, 0.1)
    batches = [{"x": torch.randn(6, 4), "y": torch.randint(0, 2, (6,)), "auxiliary_weight": w} for w in weights]
    optimizer = torch.optim.AdamW(model.parameters(), eps=0, foreach=True)  # origin
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="optimizer", op="aten::_fused_adam_", cause="adam-eps-zero")
def words_of_a_later_batch() -> dict[str, Any]:
    class BagOfWords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(8, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = self.out(self.words(tokens).mean(1))
            return logits

    model = BagOfWords()
    common = [(torch.arange(12).reshape(4, 3) % 6, torch.randint(0, 2, (4,))) for _ in range(4)]
    rare = [(torch.full((4, 3), 7), torch.randint(0, 2, (4,)))]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=0, fused=True)  # origin
    return {"model": model, "dataloader": common + rare, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="optimizer", op=ADDCDIV, kind="inf", cause="adam-eps-underflow")
def adam_with_half_parameters() -> dict[str, Any]:
    class HalfNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(x)
            return out

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return l1_loss(model(x.half()).float(), y)

    model = HalfNet().half()
    batches = [(1e-4 * (1 + torch.rand(8, 4)), torch.ones(8, 1)) for _ in range(2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)  # origin
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="optimizer", op=ADDCDIV, cause="adam-eps-underflow")
def dead_units_with_half_parameters() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(model(batch["image"]).float(), batch["label"])

    layers = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(layers.get_parameter("1.bias")[:2], -10.0)
    model = layers.to(torch.float16)
    batches = [{"image": torch.rand(6, 3, 3).half(), "label": torch.randint(0, 2, (6,))}]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, eps=1e-8)  # origin
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="optimizer", op=("aten::add_", "aten::_foreach_add_"), kind="inf", cause="update-overflow")
def learning_rate_beyond_half() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return l1_loss(model(x), y)

    model = nn.Linear(3, 1).half()
    batches = [((10 + torch.rand(8, 3)).half(), torch.randn(8, 1).half()) for _ in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=3e4)  # origin
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="optimizer", op=("aten::add_", "aten::_foreach_add_"), kind="inf", cause="update-overflow", step=3)
def schedule_that_grows_without_bound() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        error: Tensor = (model(batch["x"]) - batch["y"]).abs().mean()
        return error

    model = nn.Linear(3, 1)
    x = 100_000 * (1 + torch.rand(8, 3))
    batches = [{"x": x * sign, "y": torch.randn(8, 1)} for sign in (1, -1, 1, -1, 1)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)  # origin
    warm_up = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=3e12)
    return {
        "model": model,
        "dataloader": batches,
        "training_step": training_step,
        "optimizer": optimizer,
        "scheduler": warm_up,
    }


@case(phase="optimizer", op=("aten::add_", "aten::_foreach_add_"), kind="inf", cause="update-overflow")
def learning_rate_without_its_minus() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(4, 1))
    batches = [(torch.rand(8, 4) + 1, 100 + torch.rand(8, 1)) for _ in range(2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e37)  # origin
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": optimizer}
