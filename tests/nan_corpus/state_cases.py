"""Faults that lie in the model's state: a parameter or a buffer that is not finite, from the start or since a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from tests.nan_corpus.corpus import case


def uninitialised(*shape: int) -> Tensor:
    """What torch.empty gives, filled with NaN as the deterministic mode does it."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        return torch.empty(shape)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@case(phase="parameter", source="parameter:1.gain", cause="parameter-nonfinite")
def gain_left_uninitialised() -> dict[str, Any]:
    class Scale(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gain = nn.Parameter(uninitialised(width))  # origin
            self.shift = nn.Parameter(torch.zeros(width))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gain + self.shift

    model = nn.Sequential(nn.Linear(4, 8), Scale(8), nn.ReLU(), nn.Linear(8, 2))
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd}


@case(phase="parameter", source="parameter:rare", cause="parameter-nonfinite")
def adapter_that_only_a_later_batch_uses() -> dict[str, Any]:
    class Domains(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(4, 3)
            self.common = nn.Parameter(torch.ones(3))
            self.rare = nn.Parameter(torch.full((3,), torch.nan))  # origin

        def forward(self, x: Tensor, domain: Tensor) -> Tensor:
            hidden: Tensor = self.shared(x)
            if domain.any():
                return torch.where(domain[:, None], hidden * self.rare, hidden * self.common)
            return hidden * self.common

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(model(batch["x"], batch["domain"]), batch["y"])

    model = Domains()
    domains = [torch.zeros(4, dtype=torch.bool) for _ in range(3)]
    domains[2][1] = True
    batches = [{"x": torch.randn(4, 4), "domain": domain, "y": torch.randint(0, 3, (4,))} for domain in domains]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="parameter", source="parameter:encoder.project.weight", cause="parameter-nonfinite")
def checkpoint_of_a_run_that_had_failed() -> dict[str, Any]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 6)
            self.project = nn.Linear(6, 6)  # origin

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.project(torch.tanh(self.embed(x)))
            return hidden

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.encoder(x))
            return logits

    model = Classifier()
    checkpoint = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint["encoder.project.weight"][2, 4] = torch.nan
    model.load_state_dict(checkpoint)
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(2)]
    adam = torch.optim.Adam(model.parameters(), 1e-4)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": adam}


@case(phase="buffer", source="buffer:0.mean", cause="buffer-nonfinite")
def statistics_of_a_table_with_a_gap() -> dict[str, Any]:
    class Normalise(nn.Module):
        mean: Tensor

        def __init__(self, table: Tensor) -> None:
            super().__init__()
            self.register_buffer("mean", table.mean(0))  # origin

        def forward(self, x: Tensor) -> Tensor:
            return x - self.mean

    table = torch.randn(20, 3)
    table[17, 1] = torch.nan
    model = nn.Sequential(Normalise(table), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    batches = [(table[:8], torch.randn(8, 1)), (table[8:16], torch.randn(8, 1))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": sgd}


@case(phase="buffer", source="buffer:log_prior", kind="inf", cause="buffer-nonfinite", step=2, samples=(3,))
def prior_of_a_class_never_counted() -> dict[str, Any]:
    class Adjusted(nn.Module):
        log_prior: Tensor

        def __init__(self, counts: Tensor) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("log_prior", torch.log(counts / counts.sum()))  # origin

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(x)
            return logits + self.log_prior

    model = Adjusted(torch.tensor([70.0, 30.0, 0.0]))
    labels = [torch.tensor(label) for label in ([0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 2])]
    batches = [(torch.randn(4, 4), label) for label in labels]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": adam}


BATCH_NORM = ("aten::native_batch_norm", "aten::_native_batch_norm_legit", "aten::_batch_norm_with_update")


@case(phase="forward", op=BATCH_NORM, kind="inf", cause="variance-overflow", step=1)
def variance_of_a_batch_norm_overflows() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.norm(x))  # origin
            return logits

    model = Net()
    batches = [(torch.randn(6, 3), torch.randint(0, 2, (6,))) for _ in range(3)]
    batches[1][0][4, 0] = 1e30
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": adam}


@case(phase="data", source="batch:['unlabelled']", kind="inf", cause="batch-nonfinite", step=1)
def calibration_on_an_infinite_batch() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            model(batch["unlabelled"])  # origin
        return mse_loss(model(batch["x"]), batch["y"])

    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    batches = [{"x": torch.randn(6, 3), "unlabelled": torch.randn(6, 3), "y": torch.randn(6, 1)} for _ in range(3)]
    batches[1]["unlabelled"][5, 2] = torch.inf
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-zero", step=2)
def calibration_on_the_log_of_zero() -> dict[str, Any]:
    class Spectrogram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.fc = nn.Linear(4, 2)

        def forward(self, power: Tensor) -> Tensor:
            decibel = 10 * torch.log(power)  # origin
            logits: Tensor = self.fc(self.norm(decibel))
            return logits

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            model(batch["noise"])
        return cross_entropy(model(batch["power"]), batch["label"])

    model = Spectrogram()
    batches = [
        {"power": torch.rand(5, 4) + 0.1, "noise": torch.rand(5, 4) + 0.1, "label": torch.randint(0, 2, (5,))}
        for _ in range(4)
    ]
    batches[2]["noise"][0, 3] = 0
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}
