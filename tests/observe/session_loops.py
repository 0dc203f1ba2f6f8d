"""Training loops of every kind, as scripts have them. Each says when it has made a model and its optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils import clip_grad_norm_ as clip_known_from_before
from torch.optim import SGD, Adam, Optimizer

Made = Callable[[nn.Module, Optimizer], Any]


@dataclass
class Trained:
    """What a loop trained; `losses` and `norms` are those of each optimizer's steps, where the loop takes them down."""

    models: Sequence[nn.Module]
    optimizers: Sequence[Optimizer]
    losses: list[list[float]] = field(default_factory=lambda: [[], []])
    norms: list[list[float]] = field(default_factory=lambda: [[], []])

    def note(self, number: int, loss: Tensor) -> None:
        """Take down what the gradients are before they are clipped."""
        gradients = [p.grad.double().square().sum() for p in self.models[number].parameters() if p.grad is not None]
        self.losses[number].append(loss.item())
        self.norms[number].append(float(sum(gradients) ** 0.5))


class Net(nn.Module):
    def __init__(self, outputs: int = 5) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.dropout(self.first(x).tanh(), 0.2, self.training))


def batches(count: int = 7) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(8, 6, generator=generator), torch.randint(5, (8,), generator=generator)) for _ in range(count)]


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.1, momentum=0.9)


def train(model: nn.Module, optimizer: Optimizer, data: Sequence[Any]) -> Trained:
    for x, y in data:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return Trained([model], [optimizer])


def plain(made: Made) -> Trained:
    model = Net()
    optimizer = sgd(model)
    made(model, optimizer)
    return train(model, optimizer, batches())


def accumulation_with_a_short_window(made: Made) -> Trained:
    model = Net()
    optimizer = sgd(model)
    made(model, optimizer)
    for start in range(0, 7, 3):
        window = batches()[start : start + 3]
        for x, y in window:
            (cross_entropy(model(x), y) / len(window)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return Trained([model], [optimizer])


def fp16_scaler_and_clip(made: Made) -> Trained:
    """The first scales are too large: those steps are skipped."""
    model, scaler = Net(), torch.amp.GradScaler("cpu", init_scale=2.0**20)
    optimizer = Adam(model.parameters(), lr=0.01)
    made(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        scaler.step(optimizer)
        scaler.update()
    return Trained([model], [optimizer])


def clip_imported_by_name(made: Made) -> Trained:
    model = Net()
    optimizer = sgd(model)
    made(model, optimizer)
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        clip_known_from_before(model.parameters(), 0.1)
        optimizer.step()
    return Trained([model], [optimizer])


def lbfgs(made: Made) -> Trained:
    model = Net().eval()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    made(model, optimizer)
    for x, y in batches(4):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)
    return Trained([model], [optimizer])


def truncated_bptt(made: Made) -> Trained:
    model = nn.ModuleDict({"lstm": nn.LSTM(6, 8), "head": nn.Linear(8, 5)})
    optimizer = sgd(model)
    made(model, optimizer)
    state = torch.zeros(1, 1, 8), torch.zeros(1, 1, 8)
    for x, y in batches():
        output, (h, c) = model["lstm"](x[:, None], state)
        state = h.detach(), c.detach()
        optimizer.zero_grad()
        cross_entropy(model["head"](output[:, 0]), y).backward()
        optimizer.step()
    return Trained([model], [optimizer])


def optimizer_after_evaluation(made: Made) -> Trained:
    model = Net()
    with torch.no_grad():
        model(batches()[0][0])
    model(batches()[0][0])
    optimizer = sgd(model)
    made(model, optimizer)
    return train(model, optimizer, batches())


def validation_scheduler_and_frozen_layer(made: Made) -> Trained:
    model = Net()
    model.first.requires_grad_(False)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    made(model, optimizer)
    for x, y in batches():
        train(model.train(), optimizer, [(x, y)])
        scheduler.step()
        with torch.no_grad():
            model.eval()(1e6 * x)
    return Trained([model], [optimizer])


def ema_teacher(made: Made) -> Trained:
    model = Net()
    teacher, optimizer = copy.deepcopy(model), sgd(model)
    made(model, optimizer)
    for x, _ in batches():
        with torch.no_grad():
            target = teacher(x)
        optimizer.zero_grad()
        mse_loss(model(x), target + 1).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
    return Trained([model, teacher], [optimizer])


def compiled(made: Made) -> Trained:
    torch._dynamo.reset()
    inner = Net()
    optimizer = sgd(inner)
    model: nn.Module = torch.compile(inner, backend="eager", fullgraph=True)  # type: ignore[assignment]
    made(model, optimizer)
    return train(model, optimizer, batches())


def compiled_in_place(made: Made) -> Trained:
    torch._dynamo.reset()
    model = Net()
    optimizer = sgd(model)
    model.compile(backend="eager", fullgraph=True)
    made(model, optimizer)
    return train(model, optimizer, batches())
