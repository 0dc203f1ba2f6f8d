"""Faults that travel through writes, views and selections: what was overwritten or not selected is not the origin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.nan_corpus.corpus import case


@case(phase="forward", op="aten::log_", kind="inf", cause="log-of-zero")
def log_in_place() -> dict[str, Any]:
    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Linear(6, 16)
            self.head = nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            power = self.filters(x).clamp(min=0)
            power.log_()  # origin
            return torch.squeeze(self.head(power), -1)

    model = Energy()
    batches = [(torch.randn(8, 6), torch.randn(8))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", step=1, samples=(3,))
def write_into_columns() -> dict[str, Any]:
    """The fault is in the second of two parts written into one tensor; the batch of step 1 has an empty basket."""

    class Basket(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 1)

        def forward(self, counts: Tensor) -> Tensor:
            features = torch.zeros(len(counts), 4)
            features[:, 0] = counts.sum(1).log1p()
            features[:, 1:] = counts / counts.sum(1, keepdim=True)  # origin
            return torch.sigmoid(self.head(features)).squeeze(-1)

    model = Basket()
    counts = torch.randint(1, 9, (12, 3)).float()
    counts[9] = 0
    batches = [(counts[:6], torch.rand(6)), (counts[6:], torch.rand(6))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": Adam(model.parameters())}


@case(phase="forward", op="aten::sqrt", cause="sqrt-of-negative", samples=(1, 4))
def overwritten_fault_then_another() -> dict[str, Any]:
    """log(0) is overwritten and harms nobody; the root of a negative number does."""

    class Geometry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, sides: Tensor) -> Tensor:
            features = sides.clone()
            features[:, 0] = (sides[:, 0] - sides[:, 0]).log()
            features[:, 0] = sides.sum(1)
            features[:, 2] = (sides[:, 2] - sides[:, 1] ** 2).sqrt()  # origin
            return torch.tanh(self.head(features))

    model = Geometry()
    sides = torch.rand(6, 3) + torch.tensor([0.0, 0.0, 2.0])
    sides[[1, 4], 2] = -1
    batches = [(sides, torch.randint(0, 2, (6,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-zero", samples=(0, 2))
def log_with_out() -> dict[str, Any]:
    """`out=` writes into scratch memory that holds NaN before."""

    class Spectrum(nn.Module):
        scratch: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scratch", torch.full((4, 5), float("nan")), persistent=False)
            self.head = nn.Linear(5, 1)

        def forward(self, magnitudes: Tensor) -> Tensor:
            scratch = self.scratch[: len(magnitudes)]
            torch.log(magnitudes, out=scratch)  # origin
            return torch.squeeze(self.head(scratch.clone()), 1)

    model = Spectrum()
    magnitudes = torch.rand(4, 5) + 0.1
    magnitudes[[0, 2], 3] = 0
    batches = [(magnitudes, torch.randn(4))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="forward", op="aten::var", cause="std-of-one", step=2)
def copy_into_buffer() -> dict[str, Any]:
    """The last batch of the epoch has one sample: its variance spoils the running one, the loss stays finite."""

    class Whiten(nn.Module):
        spread: Tensor

        def __init__(self, features: int) -> None:
            super().__init__()
            self.register_buffer("spread", torch.ones(features))

        def forward(self, x: Tensor) -> Tensor:
            whitened = x / self.spread.sqrt()
            variance = x.detach().var(0)  # origin
            self.spread.copy_(0.9 * self.spread + 0.1 * variance)
            return whitened

    model = nn.Sequential(nn.Linear(3, 4), Whiten(4), nn.Linear(4, 1))
    x = torch.randn(9, 3)
    batches = [(part, part[:, :1] * 2) for part in (x[:4], x[4:8], x[8:])]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.05)}


@case(phase="forward", op="aten::exp_", kind="inf", cause="exp-overflow", samples=(5,))
def exp_in_place_on_view() -> dict[str, Any]:
    """Half of a projection becomes a scale, through a view of it."""

    class Gaussian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            both: Tensor = self.project(x)
            scale = both.view(-1, 2, 3)[:, 1]
            scale.exp_()  # origin
            return both[:, :3] * both[:, 3:]

    model = Gaussian()
    nn.init.constant_(model.project.weight, 0.25)
    x = torch.randn(6, 4)
    x[5] = 120.0
    batches = [(x, torch.rand(6, 3))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="forward", op="aten::sqrt", cause="sqrt-of-negative", samples=(2,))
def slice_of_two_faults() -> dict[str, Any]:
    """One tensor holds -inf of a log and NaN of a root; only the columns of the root are used."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            logs = torch.log(x[:, :2])
            roots = torch.sqrt(x[:, 2:])  # origin
            table = torch.cat([logs, roots], dim=1)
            return torch.relu(self.body(table[:, 2:]))

    model = Encoder()
    x = torch.rand(5, 4) + 0.5
    x[0, 0] = 0
    x[2, 3] = -0.25
    batches = [(x, torch.randint(0, 4, (5,)))]
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-zero", samples=(1,))
def where_of_two_faults() -> dict[str, Any]:
    """Both branches of `where` hold bad elements; those of the root are not selected, one of the log is."""

    class SignedLog(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            near = torch.sqrt(x)
            far = torch.log(x.abs())  # origin
            return torch.squeeze(self.out(torch.where(x > 0, near, far)), 1)

    model = SignedLog()
    x = torch.tensor([[0.5, 1.0, 2.0], [0.5, 0.0, 1.0], [-2.0, -1.0, 3.0]])
    batches = [(x, torch.ones(3))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", samples=(3,))
def masked_fill_of_two_faults() -> dict[str, Any]:
    """Two kinds of bad scores in a row; the mask covers the log's, not the ratio's."""

    class Pointer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(2, 1)

        def forward(self, prior: Tensor, hits: Tensor, tries: Tensor) -> Tensor:
            rate = hits / tries  # origin
            scores = torch.stack([prior.log(), rate], dim=2)
            scores = scores.masked_fill((prior == 0)[..., None], 0.0)
            return functional.log_softmax(self.mix(scores).squeeze(-1), dim=1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.nll_loss(model(batch["prior"], batch["hits"], batch["tries"]), batch["label"])

    model = Pointer()
    batch = {"prior": torch.rand(4, 3) + 0.1, "hits": torch.ones(4, 3), "tries": torch.full((4, 3), 4.0)}
    batch["prior"][0, 0] = batch["prior"][1, 2] = 0
    batch["hits"][3, 1] = batch["tries"][3, 1] = 0
    batch["label"] = torch.tensor([1, 0, 2, 0])
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::reciprocal", kind="inf", cause="division-by-zero", samples=(0, 3))
def gather_of_two_faults() -> dict[str, Any]:
    """Of a table with two bad rows, the batch looks one up."""

    class Prices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(6, 2)
            self.head = nn.Linear(2, 1)

        def forward(self, volumes: Tensor, items: Tensor) -> Tensor:
            weights = torch.empty(6)
            weights[:3] = 1 / volumes[:3]  # origin
            weights[3:] = torch.log(volumes[3:])
            return torch.squeeze(self.head(self.table(items)), 1) * weights[items]

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        items, prices = batch
        volumes = torch.tensor([2.0, 0.0, 3.0, 1.0, 0.0, 5.0])
        return functional.smooth_l1_loss(model(volumes, items), prices)

    model = Prices()
    batches = [(torch.tensor([1, 0, 5, 1]), torch.rand(4))]
    optimizer = Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}
