"""Faults in the forward pass: an operator outside its domain, a division by a statistic that is 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, relu
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, TensorDataset

from tests.nan_corpus.corpus import case


@case(phase="forward", op="aten::std", cause="std-of-one", step=2)
def std_of_a_batch_of_one() -> dict[str, Any]:
    class Standardise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.mean(0)) / (x.std(0) + 1e-5)  # origin

    model = nn.Sequential(nn.Linear(4, 8), Standardise(), nn.ReLU(), nn.Linear(8, 2))
    dataset = TensorDataset(torch.randn(17, 4), torch.randint(0, 2, (17,)))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {
        "model": model,
        "dataloader": DataLoader(dataset, batch_size=8),
        "loss_fn": nn.CrossEntropyLoss(),
        "optimizer": sgd,
    }


@case(phase="forward", op="aten::var", cause="std-of-one", step=1)
def variance_over_one_frame() -> dict[str, Any]:
    class SpeakerNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frames = nn.Linear(5, 8)
            self.speakers = nn.Linear(16, 3)

        def forward(self, audio: Tensor) -> Tensor:
            frames = relu(self.frames(audio))
            mean = frames.mean(1)
            variance = frames.var(1)  # origin
            logits: Tensor = self.speakers(torch.cat([mean, variance], -1))
            return logits

    model = SpeakerNet()
    batches = [(torch.randn(4, length, 5), torch.randint(0, 3, (4,))) for length in (6, 1, 3)]
    adam = torch.optim.Adam(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": adam}


@case(phase="forward", op="aten::div", cause="normalise-zero-vector", samples=(1, 6))
def unit_vector_of_zero() -> dict[str, Any]:
    class Retriever(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(6, 4, bias=False)
            self.prototypes = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            embedding = self.encoder(x)
            direction = embedding / embedding.norm(dim=-1, keepdim=True)  # origin
            logits: Tensor = direction @ self.prototypes.T
            return logits

    model = Retriever()
    x = torch.randn(8, 6)
    x[[1, 6]] = 0
    batches = [(x, torch.randint(0, 3, (8,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd}


@case(
    phase="forward", op=("aten::_weight_norm_interface", "aten::_weight_norm", "aten::div"), cause="weight-norm-of-zero"
)
def weight_norm_of_a_zero_head() -> dict[str, Any]:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 8)
            head = nn.Linear(8, 2)
            nn.init.zeros_(head.weight)
            self.head = weight_norm(head)

        def forward(self, observation: Tensor) -> Tensor:
            hidden = torch.tanh(self.body(observation))
            logits: Tensor = self.head(hidden)  # origin
            return logits

    model = Policy()
    batches = [(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(3)]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd}


@case(phase="forward", op="aten::native_layer_norm", cause="norm-without-eps", samples=(3,))
def layer_norm_without_eps() -> dict[str, Any]:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8, padding_idx=0)
            self.norm = nn.LayerNorm(8, eps=0.0)
            self.tags = nn.Linear(8, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            embedded = self.norm(self.embedding(tokens))  # origin
            logits: Tensor = self.tags(embedded)
            return logits

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["tokens"])
        return cross_entropy(logits.flatten(0, 1), batch["tags"].flatten())

    model = Tagger()
    tokens = torch.randint(1, 10, (6, 5))
    tokens[3, 3:] = 0
    batches = [{"tokens": tokens, "tags": torch.randint(0, 4, (6, 5))}]
    adamw = torch.optim.AdamW(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adamw}


@case(phase="forward", op="aten::sqrt", cause="sqrt-of-negative")
def standard_deviation_by_difference() -> dict[str, Any]:
    class Altimeter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 1)

        def forward(self, height: Tensor) -> Tensor:
            mean = height.mean(-1, keepdim=True)
            deviation = torch.sqrt((height * height).mean(-1, keepdim=True) - mean * mean)  # origin
            out: Tensor = self.fc((height - mean) / (deviation + 0.1))
            return out

    model = Altimeter()
    batches = [(12_000 + 0.01 * torch.randn(64, 16), torch.randn(64, 1))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": sgd}


@case(phase="forward", op="aten::rsqrt", kind="inf", cause="rsqrt-at-zero", samples=(0, 4))
def rms_norm_without_eps() -> dict[str, Any]:
    class RmsNorm(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True))  # origin
            return self.gain * x * scale

    model = nn.Sequential(nn.Linear(4, 8, bias=False), RmsNorm(8), nn.Linear(8, 1))
    x = torch.randn(6, 4)
    x[[0, 4]] = 0
    batches = [(x, torch.randn(6, 1)), (torch.randn(6, 4), torch.randn(6, 1))]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": adam}


@case(phase="forward", op="aten::div", kind="inf", cause="divide-by-unset-buffer")
def scaler_never_fitted() -> dict[str, Any]:
    class Scaler(nn.Module):
        mean: Tensor
        std: Tensor

        def __init__(self, features: int) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(features))
            self.register_buffer("std", torch.zeros(features))

        def fit(self, x: Tensor) -> None:
            self.mean.copy_(x.mean(0))
            self.std.copy_(x.std(0))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.mean) / self.std  # origin

    model = nn.Sequential(Scaler(4), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    batches = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(2)]
    sgd = torch.optim.SGD(model.parameters(), 0.05)
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": sgd}


@case(phase="forward", op="aten::pow", cause="power-of-negative", samples=(2,))
def gamma_of_a_negative_pixel() -> dict[str, Any]:
    class GammaCorrection(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image ** (1 / 2.2)  # origin

    model = nn.Sequential(GammaCorrection(), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    images = torch.rand(6, 1, 4, 4) + 0.05
    images[2, 0, 1, 1] = -0.01
    batches = [(images, torch.randint(0, 2, (6,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd}


@case(phase="forward", op="aten::acos", cause="acos-outside-domain", step=1, samples=(5,))
def angle_of_long_vectors() -> dict[str, Any]:
    class BondAngles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            angle = torch.acos((first * second).sum(-1, keepdim=True))  # origin
            energy: Tensor = self.energy(angle)
            return energy

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return mse_loss(model(batch["first"], batch["second"]), batch["energy"])

    def molecules() -> dict[str, Tensor]:
        first, second = nn.functional.normalize(torch.randn(2, 6, 3), dim=-1) * 0.999
        return {"first": first, "second": second, "energy": torch.randn(6, 1)}

    model = BondAngles()
    batches = [molecules(), molecules()]
    batches[1]["first"][5] = batches[1]["second"][5] = torch.tensor([0.6001, 0.0, 0.8001])
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}
