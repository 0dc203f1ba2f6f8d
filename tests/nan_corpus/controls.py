"""Functions at the edge of their domain that torch differentiates with care: nothing here may be reported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.nan_corpus.corpus import control


@control()
def vector_norm_of_zero() -> dict[str, Any]:
    def training_step(model: nn.Module, x: Tensor) -> Tensor:
        return torch.mean(torch.linalg.vector_norm(model(x), dim=1) + torch.norm(model(x), dim=1))

    model = nn.Linear(3, 4, bias=False)
    x = torch.randn(5, 3)
    x[[0, 2]] = 0
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": [x], "training_step": training_step, "optimizer": optimizer}


@control()
def std_of_constant() -> dict[str, Any]:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.fc(x)
            hidden = hidden - hidden.mean(0)
            return torch.stack([hidden.std(1), hidden.std(0).mean().expand(len(x))], dim=1)

    model = Spread()
    x = torch.ones(4, 3)
    batches = [(x, torch.rand(4, 2))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@control()
def relu_then_sqrt() -> dict[str, Any]:
    """The slope of sqrt at 0 is infinite, and relu's derivative drops it."""

    class RootActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.head(torch.relu(self.fc(x)).sqrt()))

    model = RootActivation()
    batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@control()
def angle_of_the_origin() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        y, x = model(batch[0]).unbind(1)
        return (torch.atan2(y, x) - batch[1]).square().mean()

    model = nn.Linear(3, 2, bias=False)
    x = torch.randn(4, 3)
    x[1] = 0
    optimizer = SGD(model.parameters(), 0.01)
    batches = [(x, torch.rand(4))]
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def cosine_similarity_of_zero() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        query, key = model(batch["query"]), model(batch["key"])
        similarity = functional.cosine_similarity(query, key)
        return functional.mse_loss(similarity, batch["score"]) + functional.normalize(query).sum()

    model = nn.Linear(3, 4, bias=False)
    batch = {"query": torch.randn(4, 3), "key": torch.randn(4, 3), "score": torch.rand(4)}
    batch["query"][0] = batch["key"][2] = 0
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@control()
def cdist_of_equal_rows() -> dict[str, Any]:
    """Euclidean distances of all pairs, each point with itself among them."""

    class Prototypes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            points = self.embed(x)
            return torch.cdist(points, points) + torch.cdist(points, points, p=1.0)

    model = Prototypes()
    x = torch.randn(30, 3)  # beyond 25 rows the distances come from a matrix product
    x[7] = x[3]
    batches = [(x, torch.rand(30, 30))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.L1Loss(), "optimizer": SGD(model.parameters(), 0.01)}


@control()
def products_with_zeros() -> dict[str, Any]:
    class Alpha(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.density = nn.Linear(3, 5)

        def forward(self, rays: Tensor) -> Tensor:
            kept = torch.relu(self.density(rays))
            return torch.cumprod(kept, dim=1).mean(1) + kept.prod(dim=1)

    model = Alpha()
    batches = [(torch.randn(6, 3), torch.rand(6))]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 0.01)}


@control()
def modulus_of_complex_zero() -> dict[str, Any]:
    def training_step(model: nn.Module, audio: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(model(audio))
        return torch.mean(spectrum.abs() + 0.1 * spectrum.angle().square())

    model = nn.Linear(8, 8, bias=False)
    audio = torch.randn(3, 8)
    audio[1] = 0
    optimizer = SGD(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [audio], "training_step": training_step, "optimizer": optimizer}


@control()
def logsumexp_of_nothing() -> dict[str, Any]:
    """A row without a single valid path has the log-probability -inf, and is left out of the mean."""

    class Paths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(2, 1)

        def forward(self, steps: Tensor, valid: Tensor) -> Tensor:
            scores = self.score(steps).squeeze(-1).masked_fill(~valid, float("-inf"))
            return torch.logsumexp(scores, dim=1)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        totals = model(batch["steps"], batch["valid"])
        kept = batch["valid"].any(dim=1)
        return -torch.where(kept, totals, 0.0).sum() / kept.sum()

    model = Paths()
    valid = torch.rand(4, 5) > 0.4
    valid[2] = False
    batches = [{"steps": torch.randn(4, 5, 2), "valid": valid}]
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@control()
def finite_gradient_with_infinite_norm() -> dict[str, Any]:
    """The squares of 1e25 are beyond float32, the elements are not."""

    def training_step(model: nn.Module, x: Tensor) -> Tensor:
        return torch.mean(model(x)) * 1e25

    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = SGD(model.parameters(), 1e-28)
    return {"model": model, "dataloader": [torch.randn(6, 4)], "training_step": training_step, "optimizer": optimizer}


@control(clip=1.0)
def clipping_an_infinite_norm() -> dict[str, Any]:
    """The norm of finite gradients overflows, and clipping by it gives zeros."""

    def training_step(model: nn.Module, x: Tensor) -> Tensor:
        return torch.mean(model(x)) * 1e25

    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": [torch.randn(6, 4)], "training_step": training_step, "optimizer": optimizer}


@control(precision="fp16", steps=8)
def scaler_finds_its_scale() -> dict[str, Any]:
    """At 65536 the gradients overflow half precision, six skipped steps later they fit."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    batches = [(torch.randn(8, 4), torch.full((8, 1), 30.0)) for _ in range(2)]
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": SGD(model.parameters(), 1e-3)}
