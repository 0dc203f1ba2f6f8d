"""Faults in a derivative: the forward pass is finite. Hidden branches, logarithms, decompositions and quotients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nan_corpus.corpus import case


@case(phase="backward", op="aten::log", cause="double-where", samples=(0, 2))
def log_behind_where() -> dict[str, Any]:
    class LogCounts(nn.Module):
        def __init__(self, genes: int) -> None:
            super().__init__()
            self.size_factor = nn.Parameter(torch.ones(genes))

        def forward(self, counts: Tensor) -> Tensor:
            scaled = counts * self.size_factor
            return torch.where(scaled > 0, torch.log(scaled), torch.zeros_like(scaled))  # origin

    model = nn.Sequential(LogCounts(5), nn.Linear(5, 2))
    counts = torch.randint(1, 9, (4, 5)).float()
    counts[0, 1] = counts[2, 4] = 0
    batches = [(counts, torch.tensor([0, 1, 1, 0]))]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="backward", op="aten::log", cause="double-where", step=2, samples=(1,))
def log_behind_masked_fill() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        price: Tensor = batch["price"] * model(batch["features"]).exp()
        log_price = price.log().masked_fill(batch["missing"], 0.0)  # origin
        return (log_price - batch["target"]).square().masked_fill(batch["missing"], 0.0).mean()

    def batch(missing: list[bool]) -> dict[str, Tensor]:
        price = (torch.rand(3, 1) + 0.5).masked_fill(torch.tensor(missing)[:, None], 0.0)
        return {"features": torch.randn(3, 4), "price": price, "missing": price == 0, "target": torch.randn(3, 1)}

    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    batches = [batch([False] * 3), batch([False] * 3), batch([False, True, False])]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::sqrt", cause="double-where", samples=(3,))
def sqrt_behind_where() -> dict[str, Any]:
    def safe_norm(x: Tensor) -> Tensor:
        square = x.pow(2).sum(-1, keepdim=True)
        return torch.where(square > 1e-12, square.sqrt(), torch.ones_like(square))  # origin

    class Cosine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.embed(x)
            return h / safe_norm(h)

    model = nn.Sequential(Cosine(), nn.Linear(3, 2))
    x = torch.randn(4, 4)
    x[3] = 0
    batches = [(x, torch.tensor([0, 1, 1, 0]))]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="backward", op="aten::div", cause="double-where", samples=(1,))
def quotient_behind_where() -> dict[str, Any]:
    class GatedMean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(3, 1)
            self.head = nn.Linear(3, 1)

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            weight = torch.sigmoid(self.gate(tokens)) * mask.unsqueeze(-1)
            total, mass = (weight * tokens).sum(1), weight.sum(1)
            mean = torch.where(mass > 0, total / mass, torch.zeros_like(total))  # origin
            score: Tensor = self.head(mean)
            return score

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return functional.mse_loss(model(batch["tokens"], batch["mask"]), batch["score"])

    model = GatedMean()
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    batch = {"tokens": torch.randn(3, 3, 3), "mask": mask, "score": torch.randn(3, 1)}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::log", cause="product-through-logs", samples=(0,))
def noisy_or_through_logs() -> dict[str, Any]:
    class NoisyOr(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = nn.Linear(2, 1)

        def forward(self, patches: Tensor) -> Tensor:
            present = torch.sigmoid(self.detector(patches)).squeeze(-1)
            absent = torch.exp(torch.log(1 - present).sum(dim=1))  # origin
            return 1 - absent

    model = NoisyOr()
    with torch.no_grad():
        model.detector.weight.fill_(2.0)
    patches = torch.randn(4, 3, 2)
    patches[0, 1] = 10  # saturates the sigmoid: the patch is certainly present
    batches = [(patches, torch.tensor([1.0, 0.0, 1.0, 0.0]))]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": optimizer}


@case(phase="backward", op="aten::xlogy", cause="xlogy-at-zero", samples=(2,))
def entropy_bonus_with_xlogy() -> dict[str, Any]:
    def training_step(policy: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = policy(batch["observation"])
        probabilities = logits.softmax(-1)
        entropy = -torch.xlogy(probabilities, probabilities).sum(-1)  # origin
        return (functional.cross_entropy(logits, batch["action"], reduction="none") - 0.01 * entropy).mean()

    policy = nn.Linear(3, 4)
    with torch.no_grad():
        policy.weight.copy_(torch.eye(4, 3))
    observation = torch.randn(4, 3)
    observation[2] = torch.tensor([150.0, 0.0, 0.0])
    batch = {"observation": observation, "action": torch.tensor([0, 1, 0, 3])}
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    return {"model": policy, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::div", cause="custom-backward", samples=(1, 3))
def custom_backward_normalizes() -> dict[str, Any]:
    class NormalizeGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return torch.div(gradient, gradient.norm(dim=-1, keepdim=True))  # origin

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(NormalizeGradient.apply(self.encoder(x)))  # type: ignore[no-untyped-call]
            return logits

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, label, weight = batch
        return (weight * functional.cross_entropy(model(x), label, reduction="none")).mean()

    model = Net()
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]), torch.tensor([1.0, 0.0, 1.0, 0.0]))]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::reciprocal", kind="inf", cause="quotient-derivative-overflow", samples=(1,))
def precision_of_tiny_variance() -> dict[str, Any]:
    class Heteroscedastic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_variance = nn.Linear(2, 1), nn.Linear(2, 1)
            with torch.no_grad():
                self.log_variance.weight.fill_(-1.0)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.mean(x), self.log_variance(x)

    def cauchy_nll(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        mean, log_variance = output
        precision = 1 / log_variance.exp()  # origin
        return (torch.log1p((target - mean).square() * precision) + 0.5 * log_variance).mean()

    model = Heteroscedastic()
    x = torch.randn(4, 2)
    x[1] = 30
    batches = [(x, torch.randn(4, 1))]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": cauchy_nll, "optimizer": optimizer}


@case(phase="backward", op="aten::div", kind="inf", cause="quotient-derivative-overflow", samples=(2,))
def residual_over_tiny_scale() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        location, raw_scale = model(batch["x"]).chunk(2, dim=-1)
        scale = functional.softplus(raw_scale)
        residual = (batch["y"] - location) / scale  # origin
        return (torch.log1p(residual.abs()) + scale.log()).mean()

    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[1] = -1.0
    x = torch.randn(4, 2)
    x[2] = 30
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    batch = {"x": x, "y": torch.randn(4, 1)}
    return {"model": model, "dataloader": [batch], "training_step": training_step, "optimizer": optimizer}


@case(phase="backward", op="aten::_linalg_eigh", cause="degenerate-eigenvalues")
def whitening_of_degenerate_covariance() -> dict[str, Any]:
    class Whiten(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            centered = x - x.mean(0)
            covariance = centered.T @ centered / len(x) + 1e-3 * torch.eye(x.shape[1])
            eigenvalues, vectors = torch.linalg.eigh(covariance)  # origin
            return torch.matmul(centered, vectors / eigenvalues.sqrt())

    linear = nn.Linear(3, 4, bias=False)
    model = nn.Sequential(linear, Whiten(), nn.Linear(4, 2))
    with torch.no_grad():
        linear.weight[2:] = 0  # two dead units: twice the same eigenvalue
    batches = [(torch.randn(8, 3), torch.randint(0, 2, (8,)))]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": optimizer}


@case(phase="backward", op="aten::_linalg_svd", cause="degenerate-eigenvalues", samples=(0, 1, 2))
def rotation_head_at_identity() -> dict[str, Any]:
    class RotationHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Linear(4, 9)
            nn.init.zeros_(self.matrix.weight)
            with torch.no_grad():
                self.matrix.bias.copy_(torch.eye(3).flatten())

        def forward(self, x: Tensor) -> Tensor:
            u, _, vh = torch.linalg.svd(self.matrix(x).view(-1, 3, 3))  # origin
            return torch.matmul(u, vh)

    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), RotationHead())
    batches = [(torch.randn(3, 2), torch.linalg.qr(torch.randn(3, 3, 3)).Q)]
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return {"model": model, "dataloader": batches, "loss_fn": nn.MSELoss(), "optimizer": optimizer}
