"""A fault on one known line, in a random layer and step of a real network: that line is the origin, every time."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.tape import NanTrace
from tests.tracing.hunts import code_of, traced

SAMPLES = Path(__file__).parents[2] / "sample_models"
Fault = Callable[[Tensor], Tensor]


def sample(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A sample model's file as a module."""
    monkeypatch.syspath_prepend(str(SAMPLES))
    loaded = importlib.import_module(name)
    for imported in (name, "sample_data"):
        monkeypatch.delitem(sys.modules, imported, raising=False)
    return loaded


# Faults: each changes an activation that has negative elements and returns one of the same shape.


def log_of_relu(h: Tensor) -> Tensor:
    return h * torch.log(torch.relu(h))  # log


def root_of_square(h: Tensor) -> Tensor:
    return h + torch.sqrt((h - h.detach()).square())  # root


def root_of_relu(h: Tensor) -> Tensor:
    """Harmless: the slope of relu at 0 leaves nothing of the infinite one."""
    return h + torch.sqrt(torch.relu(h))


def quotient(h: Tensor) -> Tensor:
    return h / (h.detach() - h.detach())  # quotient


def norm_by_hand(h: Tensor) -> Tensor:
    return h / torch.sqrt((torch.relu(h) - torch.relu(h)).pow(2).sum(-1, keepdim=True))  # norm


def overflow(h: Tensor) -> Tensor:
    return h * torch.exp(h.abs() + 100)  # overflow


def written_in_place(h: Tensor) -> Tensor:
    h = h.clone()
    h[..., 0].mul_(0).div_(torch.zeros(()))  # written
    return h


def spoiled_slope(h: Tensor) -> Tensor:
    return Spoiled.apply(h)  # type: ignore[no-untyped-call, no-any-return]


class Spoiled(torch.autograd.Function):
    """Finite, with a derivative that is not."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return h.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / torch.zeros(())  # slope


FAULTS: dict[Fault, tuple[str, str, str]] = {
    log_of_relu: ("# log", "forward", "aten::log"),
    root_of_square: ("# root", "backward", "aten::sqrt"),
    quotient: ("# quotient", "forward", "aten::div"),
    norm_by_hand: ("# norm", "forward", "aten::div"),
    overflow: ("# overflow", "forward", "aten::exp"),
    written_in_place: ("# written", "forward", "aten::div_"),
    spoiled_slope: ("# slope", "backward", ""),
}


# Networks


def gpt(monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Any, Any]:
    module = sample("char_gpt", monkeypatch)
    data = torch.randint(module.VOCABULARY, (6, 2, 9))
    model = module.GPT(width=16, heads=2, depth=2, length=8)
    return model, [(x[:, :-1], x[:, 1:]) for x in data], module.next_character_loss


def lstm(monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Any, Any]:
    module = sample("char_lstm", monkeypatch)
    data = torch.randint(module.VOCABULARY, (6, 4, 9))
    return module.CharacterLSTM(width=8), [(x[:, :-1], x[:, 1:]) for x in data], module.next_character_loss


def cnn(monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Any, Any]:
    module = sample("digits_cnn", monkeypatch)
    batches = [(torch.randn(4, 1, 8, 8), torch.randint(10, (4,))) for _ in range(6)]
    return module.ResidualNetwork(channels=4, depth=3), batches, functional.cross_entropy


NETWORKS = {"gpt": gpt, "lstm": lstm, "cnn": cnn}
LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.LSTM, nn.Embedding)


def leaves(model: nn.Module) -> list[str]:
    """The layers that a fault can be put into; the positions' is never called."""
    return [name for name, module in model.named_modules() if isinstance(module, LAYERS) and name != "positions"]


def inject(layer: Any, fault: Fault, step: int) -> None:
    """Let a layer's output pass through a fault in one step."""
    original = layer.forward
    layer.calls = 0

    def forward(*args: Any) -> Any:
        layer.calls += 1
        output = original(*args)
        if layer.calls != step + 1:
            return output
        return (fault(output[0]), *output[1:]) if isinstance(output, tuple) else fault(output)

    layer.forward = forward


def workload(name: str, monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], None]) -> Workload:
    model, batches, loss_fn = NETWORKS[name](monkeypatch)
    change(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return make_workload({"model": model, "dataloader": batches, "loss_fn": loss_fn, "optimizer": optimizer})


@pytest.mark.parametrize("draw", range(2))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_line_is_found(name: str, fault: Fault, draw: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = random.Random(f"{name} {fault.__name__} {draw}")
    step, layers = choice.randrange(5), []

    def change(model: nn.Module) -> None:
        layers.append(choice.choice(leaves(model)))
        inject(model.get_submodule(layers[0]), fault, step)

    trace: NanTrace = traced(lambda: workload(name, monkeypatch, change), steps=6)
    mark, phase, op = FAULTS[fault]
    assert trace.step == step, layers
    assert len(trace.origins) == 1, (layers, trace.origins)
    (origin,) = trace.origins
    assert mark in code_of(origin)
    assert (origin.phase, origin.module, origin.verified) == (phase, layers[0], True)
    if op:
        assert origin.op == op


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_harmless_is_not_reported(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: nn.Module) -> None:
        for layer in leaves(model):
            inject(model.get_submodule(layer), root_of_relu, 2)

    trace = traced(lambda: workload(name, monkeypatch, change), steps=6, precision=precision)
    assert trace.clean
