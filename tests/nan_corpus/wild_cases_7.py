"""Held out while nan-trace was made: state that a step keeps, gradients inside the step, hooks, in-place repairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
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


@case(phase="forward", op="aten::div", kind="inf", step=3, cause="division-by-zero")
def temperature_counted_down_by_the_module() -> dict[str, Any]:
    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.calls = nn.Linear(3, 4), 0

        def forward(self, x: Tensor) -> Tensor:
            temperature = 1.5 - 0.5 * self.calls
            self.calls += 1
            return torch.softmax(self.gate(x) / temperature, -1)  # origin

    return train(Router(), [(torch.randn(4, 3), torch.rand(4, 4)) for _ in range(5)], regress)


@case(phase="forward", op="aten::div", cause="division-by-zero", kind="inf", step=2)
def trace_kept_as_a_plain_tensor() -> dict[str, Any]:
    class Fading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.scale = nn.Linear(3, 1), torch.ones(())

        def forward(self, x: Tensor) -> Any:
            out = self.fc(x) / self.scale  # origin
            self.scale = self.scale - 0.5
            return out

    return train(Fading(), [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(5)], regress)


@case(phase="forward", op="aten::log", kind="inf", step=1, cause="log-of-zero")
def unlabelled_batch_from_an_iterator() -> dict[str, Any]:
    """Semi-supervised: the step draws its second batch itself."""
    counts = torch.rand(3, 4, 3) + 0.5
    counts[1, 2, 0] = 0
    unlabelled = itertools.cycle(counts)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.fc(torch.log(x)))  # origin

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
        return regress(model, batch) + 0.1 * model(next(unlabelled)).square().mean()

    return train(Encoder(), [(torch.rand(4, 3) + 0.5, torch.rand(4, 2))], training_step)


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", kind="inf", samples=(2,))
def forces_of_an_atom_on_an_atom() -> dict[str, Any]:
    class ForceField(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

        def forward(self, pair: Tensor) -> Tensor:
            pair = pair.detach().requires_grad_()
            distance = (pair[:, 0] - pair[:, 1]).square().sum(-1).sqrt()  # origin
            energy = torch.tanh(distance[:, None] * self.weight).sum()
            (slope,) = torch.autograd.grad(energy, pair, create_graph=True)
            return -slope

    pairs = torch.randn(4, 2, 3)
    pairs[2, 1] = pairs[2, 0]
    return train(ForceField(), [(pairs, torch.randn(4, 2, 3))], regress)


@case(phase="backward", op="aten::div", cause="zero-divided-by-zero")
def activation_gradient_scaled_by_its_maximum() -> dict[str, Any]:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.stem(x))
            hidden.register_hook(lambda gradient: gradient / gradient.abs().max())  # type: ignore[no-untyped-call]  # origin
            return torch.sigmoid(self.head(hidden))

    return train(Network(), [(torch.randn(4, 3), torch.rand(4, 1))], regress)


@case(phase="backward", op=("aten::div_", "aten::div"), cause="normalise-zero-vector")
def gradient_normalised_where_it_accumulates() -> dict[str, Any]:
    def normalise(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.div_(parameter.grad.norm())  # origin

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].get_parameter("bias"), -50.0)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(normalise)  # type: ignore[no-untyped-call]
    return train(model, [(torch.randn(5, 3), torch.randn(5, 1))], regress)


@case(phase="forward", op=("aten::div_", "aten::div"), cause="normalise-zero-vector")
def prototypes_normalised_in_place() -> dict[str, Any]:
    """As in SwAV: the rows are brought to unit length at the start of each step."""

    def training_step(model: nn.Sequential, batch: tuple[Tensor, Tensor]) -> Tensor:
        prototypes = model[1]
        with torch.no_grad():
            prototypes.weight.div_(prototypes.weight.norm(dim=1, keepdim=True))  # type: ignore[operator]  # origin
        return functional.cross_entropy(model(batch[0]), batch[1])

    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5, bias=False))
    with torch.no_grad():
        model[1].get_parameter("weight")[3] = 0
    return train(model, [(torch.randn(4, 4), torch.randint(0, 5, (4,)))], training_step)


@case(phase="forward", op=("aten::addmm", "aten::linear"), kind="inf", samples=(1,), cause="half-matmul-overflow")
def autocast_inside_the_step() -> dict[str, Any]:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)
            nn.init.constant_(self.fc.weight, 0.9)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x)  # origin
            return out

    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            logits = model(batch[0])
        return functional.cross_entropy(logits.float(), batch[1])

    x = torch.randn(3, 4)
    x[1] = 30_000.0
    return train(Head(), [(x, torch.tensor([0, 1, 0]))], training_step)


@case(phase="forward", op="aten::div", kind="inf", cause="division-by-zero")
def gumbel_softmax_without_temperature() -> dict[str, Any]:
    class Selector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits, self.tau = nn.Linear(3, 4), 0.0

        def forward(self, x: Tensor) -> Tensor:
            return functional.gumbel_softmax(self.logits(x), tau=self.tau)  # origin

    return train(Selector(), [(torch.randn(4, 3), torch.rand(4, 4))], regress)


@case(phase="loss", op="aten::div", cause="masked-mean-of-empty", kind="inf", step=1)
def weight_of_positives_in_a_batch_without_any() -> dict[str, Any]:
    def training_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits, target = model(batch[0]).squeeze(1), batch[1]
        weight = (1 - target).sum() / target.sum()  # origin
        return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)

    targets = (torch.tensor([0.0, 1.0, 0.0, 1.0]), torch.zeros(4))
    return train(nn.Linear(3, 1), [(torch.randn(4, 3), target) for target in targets], training_step)


@case(phase="backward", op="aten::sqrt", cause="sqrt-at-zero", kind="inf")
def minibatch_deviation_of_a_collapsed_generator() -> dict[str, Any]:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 4), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.body(x))
            deviation = (hidden - hidden.mean(0)).square().mean(0).sqrt().mean()  # origin
            score: Tensor = self.head(torch.cat((hidden, deviation.expand(len(x), 1)), 1))
            return score

    return train(Critic(), [(torch.ones(4, 3), torch.rand(4, 1))], regress)


@case(phase="forward", kind="finite", error=True, step=1, cause="singular-matrix-refused")
def covariance_of_equal_samples() -> dict[str, Any]:
    class Density(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            z = self.fc(x)
            normal = MultivariateNormal(z.mean(0), torch.cov(z.T))  # origin
            return -normal.log_prob(z.detach() + 0.1)  # type: ignore[no-untyped-call]

    batches = [(torch.randn(4, 3), torch.zeros(4)), (torch.ones(4, 3), torch.zeros(4))]
    return train(Density(), batches, regress, 1e-3)


@case(phase="backward", op="aten::sqrt", kind="inf", cause="sqrt-at-zero")
def inner_step_of_a_meta_learner() -> dict[str, Any]:
    """Its length is one line, its root another."""

    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2, bias=False)

        def distance(self, weight: Tensor, x: Tensor) -> Tensor:
            length = (x @ weight.T).square().sum()
            return torch.sqrt(length)  # origin

        def forward(self, support: Tensor) -> Any:
            slope = torch.func.grad(self.distance)(self.fc.weight, support)
            return (support + 1) @ (self.fc.weight - 0.1 * slope).T

    return train(Learner(), [(torch.zeros(4, 3), torch.randn(4, 2))], regress)
