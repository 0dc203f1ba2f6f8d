"""Faults that come in with the data: a batch that is not finite, or a feature that is constant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, mse_loss, relu
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.nan_corpus.corpus import case


@case(phase="data", source="batch:['features']", cause="batch-nonfinite", step=1, samples=(3,))
def missing_value_in_a_table() -> dict[str, Any]:
    class Table(Dataset[dict[str, Tensor]]):
        def __init__(self, rows: int) -> None:
            self.features, self.label = torch.randn(rows, 5), torch.randint(0, 2, (rows,))
            self.features[11, 2] = torch.nan

        def __len__(self) -> int:
            return len(self.label)

        def __getitem__(self, row: int) -> dict[str, Tensor]:
            return {"features": self.features[row], "label": self.label[row]}

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["features"])  # origin
        return cross_entropy(logits, batch["label"])

    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    loader = DataLoader(Table(24), batch_size=8)
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": loader, "training_step": training_step, "optimizer": adam}


@case(phase="data", source="batch:[0]['depth']", kind="inf", cause="batch-nonfinite", samples=(0, 2))
def infinite_depth_in_a_picture() -> dict[str, Any]:
    class RgbdNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rgb, self.depth = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)
            self.out = nn.Linear(4, 2)

        def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
            color = self.rgb(rgb)
            distance = self.depth(depth)  # origin
            logits: Tensor = self.out(relu(color + distance).mean((2, 3)))
            return logits

    def training_step(model: nn.Module, batch: tuple[dict[str, Tensor], Tensor]) -> Tensor:
        image, label = batch
        return cross_entropy(model(**image), label)

    model = RgbdNet()
    depth = torch.rand(4, 1, 5, 5)
    depth[[0, 2], 0, 1, 3] = torch.inf
    batches = [({"rgb": torch.rand(4, 3, 5, 5), "depth": depth}, torch.randint(0, 2, (4,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="data", source="batch:[1]", cause="batch-nonfinite", step=2, samples=(1,))
def missing_target() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, target = batch
        prediction = model(x).squeeze(-1)
        return mse_loss(prediction, target)  # origin

    model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))
    target = torch.randn(12)
    target[9] = torch.nan
    loader = DataLoader(TensorDataset(torch.randn(12, 3), target), batch_size=4)
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": loader, "training_step": training_step, "optimizer": adam}


@case(phase="data", source="batch:[0]", cause="batch-nonfinite")
def constant_column_standardised_in_the_dataset() -> dict[str, Any]:
    class Standardised(Dataset[tuple[Tensor, Tensor]]):
        def __init__(self, x: Tensor, y: Tensor) -> None:
            self.x, self.y = (x - x.mean(0)) / x.std(0), y

        def __len__(self) -> int:
            return len(self.x)

        def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
            return self.x[row], self.y[row]

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return mse_loss(model(x), y)  # origin

    measured = torch.randn(12, 4)
    measured[:, 1] = 1
    model = nn.Linear(4, 1)
    loader = DataLoader(Standardised(measured, torch.randn(12, 1)), batch_size=6)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": loader, "training_step": training_step, "optimizer": sgd}


@case(phase="forward", op="aten::div", cause="standardise-constant", step=1)
def constant_column_standardised_in_the_step() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        x = (x - x.mean(0)) / x.std(0)  # origin
        return cross_entropy(model(x), y)

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
    batches[1][0][:, 2] = 4
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="loss", op="aten::div", cause="standardise-constant", step=1)
def equal_returns_standardised() -> dict[str, Any]:
    def training_step(policy: nn.Module, episode: dict[str, Tensor]) -> Tensor:
        log_probs = log_softmax(policy(episode["observation"]), -1)
        chosen = log_probs.gather(1, episode["action"][:, None]).squeeze(1)
        returns = episode["reward"].flip(0).cumsum(0).flip(0)
        advantage = (returns - returns.mean()) / returns.std()  # origin
        return -(chosen * advantage).mean()

    def play(reward: Tensor) -> dict[str, Tensor]:
        return {"observation": torch.randn(5, 4), "action": torch.randint(0, 2, (5,)), "reward": reward}

    policy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    episodes = [play(torch.ones(5)), play(torch.zeros(5)), play(torch.ones(5))]
    adam = torch.optim.Adam(policy.parameters(), 0.01)
    return {"model": policy, "dataloader": episodes, "training_step": training_step, "optimizer": adam}
