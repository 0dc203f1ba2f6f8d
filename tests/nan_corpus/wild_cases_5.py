"""Held out while nan-trace was made, from reports of users: derivatives and hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.nan_corpus.corpus import case

Batch = dict[str, Tensor]


def train(model: nn.Module, batches: list[Any], step: Callable[[Any, Any], Tensor], lr: float = 0.01) -> dict[str, Any]:
    """The parts of a run with SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr)
    return {"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer}


def regress(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean squared error."""
    return functional.mse_loss(model(batch[0]), batch[1])


@case(phase="backward", op="aten::logaddexp", cause="operator-over-infinity")
def monotonic_alignment_by_logaddexp() -> dict[str, Any]:
    """Two impossible paths meet: their sum has no slope, though nothing impossible is ever used."""

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        emissions = functional.log_softmax(model(batch[0]), -1)
        alpha = emissions[0] + torch.tensor([0.0, -torch.inf, -torch.inf])
        for frame in emissions[1:]:
            moved = torch.cat((torch.full((1,), -torch.inf), alpha[:-1]))
            alpha = torch.logaddexp(alpha, moved) + frame  # origin
        return -alpha[-1]

    return train(nn.Linear(4, 3), [(torch.randn(5, 4), torch.zeros(1))], training_step)


@case(phase="backward", op="aten::logcumsumexp", samples=(1,), cause="operator-over-infinity")
def hazard_by_logcumsumexp_over_padding() -> dict[str, Any]:
    class Hazard(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(3, 1)

        def forward(self, x: Tensor, valid: Tensor) -> Tensor:
            padding = torch.zeros(valid.shape).masked_fill(~valid, -torch.inf)
            return torch.logcumsumexp(self.score(x).squeeze(-1) + padding, 1)[:, -1]  # origin

    def training_step(model: nn.Module, batch: Batch) -> Any:
        return model(batch["x"], batch["valid"]).square().mean()

    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[1, :2] = False
    return train(Hazard(), [{"x": torch.randn(3, 4, 3), "valid": valid}], training_step)


@case(phase="backward", op="aten::log", cause="double-where", samples=(2,))
def logarithm_clamped_afterwards() -> dict[str, Any]:
    class Vote(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            votes = self.scores(x).abs().sum(1)
            return torch.log(votes).clamp(min=-100.0)  # origin

    x = torch.rand(4, 3)
    x[2] = 0
    return train(Vote(), [(x, torch.zeros(4))], regress, 1e-3)


@case(phase="backward", op="aten::div", cause="double-where", samples=(0,))
def ratio_cleaned_by_nan_to_num() -> dict[str, Any]:
    class Precision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hits, self.calls = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            hits, calls = torch.relu(self.hits(x)), torch.exp(self.calls(x)) * x.abs().sum(1, keepdim=True)
            ratio = hits / calls  # origin
            return torch.tanh(torch.nan_to_num(ratio))

    x = torch.rand(4, 3)
    x[0] = 0
    return train(Precision(), [(x, torch.rand(4, 1))], regress)


@case(phase="forward", op="aten::exp", cause="exp-overflow", kind="inf", samples=(3,))
def softplus_of_a_custom_function() -> dict[str, Any]:
    class Softplus(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return torch.log1p(torch.exp(x))  # origin

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return gradients[0] * torch.sigmoid(ctx.saved_tensors[0])

    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            nn.init.constant_(self.fc.weight, 0.5)

        def forward(self, x: Tensor) -> Tensor:
            rate: Tensor = Softplus.apply(self.fc(x))  # type: ignore[no-untyped-call]
            return rate

    x = torch.rand(4, 2)
    x[3] = 200.0
    return train(Rate(), [(x, torch.rand(4, 2))], regress, 1e-6)


@case(phase="backward", op=("aten::reciprocal", "aten::div"), kind="inf", cause="normalise-zero-vector")
def gradient_clipped_by_hand_at_a_dead_layer() -> dict[str, Any]:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].get_parameter("bias"), -50.0)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradient * (1.0 / gradient.norm()))  # type: ignore[no-untyped-call]  # origin
    return train(model, [(torch.randn(5, 3), torch.randn(5, 1))], regress)


@case(phase="backward", op="aten::div", cause="custom-backward", step=1)
def gradient_normalised_by_a_module_hook() -> dict[str, Any]:
    """The second batch is fitted exactly: its gradient is 0, and so is the norm that it is divided by."""

    def normalise(module: nn.Module, of_input: Any, of_output: Any) -> Any:
        return tuple(gradient / gradient.norm() for gradient in of_input)  # origin

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.act, self.head = nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1, bias=False)
            self.act.register_full_backward_hook(normalise)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.head(self.act(self.stem(x))) - x.mean(1, keepdim=True))

    batches = [(-torch.rand(5, 3) - 1, torch.rand(5, 1)), (torch.rand(5, 3) + 9, torch.zeros(5, 1))]
    return train(Network(), batches, regress, 1e-3)
