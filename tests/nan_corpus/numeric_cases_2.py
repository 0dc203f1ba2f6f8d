"""Faults in the forward pass: densities and transforms at the edge of their support."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, relu, softmax

from tests.nan_corpus.corpus import case


def with_zero_rows(x: Tensor, *rows: int) -> Tensor:
    """The same with these rows 0."""
    x[list(rows)] = 0
    return x


@case(phase="forward", op=("aten::div", "aten::log"), cause="normal-scale-zero", samples=(0, 3))
def latent_of_no_width() -> dict[str, Any]:
    class Posterior(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc, self.scale = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
            self.decoder = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            q: Any = torch.distributions.Normal(self.loc(x), self.scale(x).abs(), validate_args=False)
            z = q.rsample()
            log_q = q.log_prob(z).sum(-1)  # origin
            return self.decoder(z), log_q

    def training_step(model: nn.Module, x: Tensor) -> Tensor:
        reconstruction, log_q = model(x)
        return mse_loss(reconstruction, x) + 1e-3 * torch.mean(log_q)

    model = Posterior()
    batches = [with_zero_rows(torch.randn(6, 4), 0, 3)]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="loss", op=("aten::div", "aten::log"), kind="inf", cause="normal-scale-zero", samples=(2,))
def gaussian_likelihood_of_scale_zero() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        mean, scale = model(x).chunk(2, -1)
        sigma = scale.abs()
        nll: Tensor = torch.log(sigma) + 0.5 * ((y - mean) / sigma) ** 2  # origin
        return nll.mean()

    model = nn.Linear(4, 2, bias=False)
    batches = [(with_zero_rows(torch.randn(6, 4), 2), torch.randn(6, 1))]
    sgd = torch.optim.SGD(model.parameters(), 1e-3)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="forward", kind="finite", cause="normal-scale-zero", samples=(4,), error=True)
def normal_refuses_scale_zero() -> dict[str, Any]:
    class Forecaster(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(2, 8, batch_first=True)
            self.loc, self.scale = nn.Linear(8, 1), nn.Linear(2, 1, bias=False)

        def forward(self, series: Tensor) -> torch.distributions.Normal:
            state = self.rnn(series)[0][:, -1]
            volatility = self.scale(series.abs().mean(1)).abs()
            return torch.distributions.Normal(self.loc(state), volatility)  # origin

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = -model(batch["series"]).log_prob(batch["next"]).mean()
        return loss

    model = Forecaster()
    batches = [{"series": with_zero_rows(torch.randn(6, 5, 2), 4), "next": torch.randn(6, 1)}]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="forward", op="aten::log", kind="inf", cause="gumbel-at-bound", samples=(3,))
def gumbel_of_one() -> dict[str, Any]:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor, u: Tensor) -> Tensor:
            noise = -torch.log(-torch.log(u))  # origin
            logits: Tensor = self.experts(softmax((self.gate(x) + noise) / 0.5, -1))
            return logits

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, u, y = batch
        return cross_entropy(model(x, u), y)

    model = Router()
    u = torch.randint(1, 255, (6, 3)) / 255
    u[3, 1] = 1
    batches = [(torch.randn(6, 4), u, torch.randint(0, 2, (6,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="loss", op="aten::log", kind="inf", cause="gumbel-at-bound", step=1, samples=(0,))
def gumbel_of_zero() -> dict[str, Any]:
    def perturb(scores: Tensor, u: Tensor) -> Tensor:
        return scores - torch.log(-torch.log(u))  # origin

    def training_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(perturb(model(batch["x"]), batch["u"]), batch["choice"])

    def choices() -> dict[str, Tensor]:
        u = torch.randint(1, 127, (6, 4)) / 127
        return {"x": torch.randn(6, 3), "u": u, "choice": torch.tensor([2, 0, 1, 3, 0, 2])}

    model = nn.Linear(3, 4)
    batches = [choices(), choices()]
    batches[1]["u"][0, 2] = 0
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": sgd}


@case(phase="forward", op="aten::log", kind="inf", cause="inverse-softplus-at-zero", samples=(1, 2))
def inverse_softplus_of_a_silent_note() -> dict[str, Any]:
    class NoteEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.notes = nn.Linear(3, 8)
            self.out = nn.Linear(8, 2)

        def forward(self, duration: Tensor) -> Tensor:
            unbounded = torch.log(torch.expm1(duration))  # origin
            logits: Tensor = self.out(relu(self.notes(unbounded)))
            return logits

    model = NoteEncoder()
    duration = torch.rand(5, 3) + 0.1
    duration[[1, 2], [0, 2]] = 0
    batches = [(duration, torch.randint(0, 2, (5,)))]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    return {"model": model, "dataloader": batches, "loss_fn": nn.CrossEntropyLoss(), "optimizer": sgd}


@case(
    phase="forward", op=("aten::_linalg_slogdet", "aten::linalg_slogdet"), kind="inf", cause="logdet-of-singular-matrix"
)
def flow_with_equal_channels() -> dict[str, Any]:
    class Mixing(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels, channels))

        def forward(self, x: Tensor) -> Tensor:
            z = x @ self.weight
            log_det = torch.logdet(self.weight)  # origin
            return 0.5 * z.pow(2).sum(-1) - log_det

    def training_step(model: nn.Module, x: Tensor) -> Tensor:
        nll: Tensor = model(x).mean()
        return nll

    model = Mixing(3)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    batches = [torch.randn(8, 3) for _ in range(3)]
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}


@case(phase="forward", op="aten::atanh", kind="inf", cause="atanh-at-one", samples=(1,))
def saturated_action() -> dict[str, Any]:
    class SquashedPolicy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Linear(3, 2)

        def forward(self, observation: Tensor, action: Tensor) -> Tensor:
            before_tanh = torch.atanh(action)  # origin
            log_prob = -0.5 * (before_tanh - self.mean(observation)) ** 2
            return torch.sum(log_prob - torch.log1p(-(action**2) + 1e-6), -1)

    def training_step(policy: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        log_prob = policy(batch["observation"], batch["action"])
        return -torch.mean(log_prob * batch["advantage"])

    model = SquashedPolicy()
    action = torch.tanh(torch.randn(6, 2))
    action[1, 0] = 1
    batches = [{"observation": torch.randn(6, 3), "action": action, "advantage": torch.rand(6)}]
    adam = torch.optim.Adam(model.parameters())
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": adam}
