"""Faults in second derivatives, in compiled models, and where several sweeps or errors are in one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from tests.nan_corpus.corpus import case


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero", samples=(1,))
def gradient_penalty_norm() -> dict[str, Any]:
    """A critic without slope at one sample: the norm of its gradient is 0, and cannot be differentiated there."""

    def training_step(model: nn.Module, batch: Tensor) -> Tensor:
        x = batch.clone().requires_grad_()
        score = model(x)
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        length = slope.square().sum(1).sqrt()  # origin
        return torch.mean(score + 10 * (length - 1).square())

    model = nn.Sequential(nn.Linear(2, 8, bias=False), nn.ReLU(), nn.Linear(8, 1))
    x = torch.randn(4, 2)
    x[1] = 0
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [x], "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::pow", cause="power-at-zero", samples=(0, 3))
def second_derivative_of_power() -> dict[str, Any]:
    """x ** 1.5 has a slope at 0, but its slope has none."""

    class Potential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 6, bias=False)
            self.head = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            bent = self.fc(x).abs() ** 1.5  # origin
            return torch.squeeze(self.head(bent), 1)

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        positions = batch[0].clone().requires_grad_()
        energy = model(positions)
        (force,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        return functional.mse_loss(-force, batch[1])

    model = Potential()
    positions = torch.randn(4, 2)
    positions[[0, 3]] = 0
    batches = [(positions, torch.randn(4, 2))]
    optimizer = Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::log", kind="inf", cause="log-of-softmax", step=1, samples=(2,))
def compiled_forward() -> dict[str, Any]:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(torch.softmax(self.fc(x), dim=-1))  # origin

    model = Classifier()
    batches = [(torch.randn(4, 3), torch.softmax(torch.randn(4, 4), dim=-1)) for _ in range(2)]
    batches[1][0][2] *= 1e3
    compiled = torch.compile(model, backend="eager")
    return {
        "model": compiled,
        "dataloader": batches,
        "loss_fn": nn.KLDivLoss(reduction="batchmean"),
        "optimizer": SGD(model.parameters(), 1e-3),
    }


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero", samples=(1,))
def compiled_backward() -> dict[str, Any]:
    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.embed(x[:, 0]), self.embed(x[:, 1])
            return torch.sqrt((left - right).square().sum(-1))  # origin

    model = Distance()
    pairs = torch.randn(3, 2, 3)
    pairs[1, 1] = pairs[1, 0]
    batches = [(pairs, torch.rand(3))]
    compiled = torch.compile(model, backend="aot_eager")
    return {
        "model": compiled,
        "dataloader": batches,
        "loss_fn": nn.L1Loss(),
        "optimizer": SGD(model.parameters(), 0.01),
    }


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero")
def two_backward_calls() -> dict[str, Any]:
    """A GAN: the discriminator learns inside the step, from a gradient that the first backward call has spoiled."""

    class Gan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = nn.Linear(2, 3, bias=False)
            self.discriminator = nn.Linear(3, 1, bias=False)
            nn.init.zeros_(self.generator.weight)

    def training_step(model: Gan, real: Tensor) -> Tensor:
        fake = model.generator(torch.randn(len(real), 2))
        on_real, on_fake = model.discriminator(real), model.discriminator(fake.detach())
        drift = on_fake.square().mean().sqrt()  # origin
        judge.zero_grad()
        (functional.softplus(on_fake - on_real).mean() + 0.1 * drift).backward()
        judge.step()
        return functional.softplus(-model.discriminator(fake)).mean()

    model = Gan()
    judge = Adam(model.discriminator.parameters(), 1e-3)
    batches = [torch.randn(4, 3)]
    optimizer = Adam(model.generator.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::exp", kind="inf", cause="exp-overflow", step=1, samples=(0,))
def second_call_of_the_model() -> dict[str, Any]:
    """Consistency between two views of a sample: it is the second view that is too far out."""

    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(self.fc(x))  # origin

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        weak, strong = batch
        return functional.l1_loss(model(weak), model(strong))

    model = Rate()
    nn.init.constant_(model.fc.weight, 0.5)
    batches = [(torch.rand(3, 2), torch.rand(3, 2)) for _ in range(2)]
    batches[1][1][0] = 100.0
    optimizer = SGD(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="forward", op="aten::div", cause="zero-divided-by-zero", samples=(4,))
def two_independent_origins() -> dict[str, Any]:
    """Either head alone would make the loss non-finite, by an error and a sample of its own."""

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.volume, self.ratio = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, sizes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
            ratio = self.ratio(counts / counts.sum(1, keepdim=True))  # origin
            volume = self.volume(torch.log(sizes))  # origin
            return volume, ratio

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        volume, ratio = model(batch["sizes"], batch["counts"])
        return functional.l1_loss(volume, batch["volume"]) + functional.l1_loss(ratio, batch["ratio"])

    model = TwoHeads()
    batch = {name: torch.rand(6, 2) + 0.1 for name in ("sizes", "counts")}
    batch |= {name: torch.rand(6, 1) for name in ("volume", "ratio")}
    batch["sizes"][1, 0] = 0
    batch["counts"][4] = 0
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero", samples=(0,))
def two_origins_in_backward() -> dict[str, Any]:
    """Two regularisers of one embedding, each with an infinite slope of its own."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            energy = torch.sqrt(self.left(a).square().sum(1))  # origin
            distance = self.right(b).abs().sum(1).sqrt()  # origin
            return torch.add(energy, distance)

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.l1_loss(model(batch["a"], batch["b"]), batch["target"])

    model = Encoder()
    batch = {"a": torch.randn(4, 3), "b": torch.randn(4, 3), "target": torch.ones(4)}
    batch["a"][0] = 0
    batch["b"][3] = 0
    optimizer = SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}
