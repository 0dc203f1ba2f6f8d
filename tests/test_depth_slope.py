"""GC101 and GC102 on real networks at initialisation: healthy ones are silent, badly initialised ones are found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional, init

from gradcheck_cli.diagnose.diagnosis import diagnose
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.records import RunInfo, Severity

Init = Callable[[Tensor], object]


def he(weight: Tensor) -> Tensor:
    return init.kaiming_normal_(weight, nonlinearity="relu")


def normal(std: float) -> Init:
    return lambda weight: init.normal_(weight, 0, std)


def mlp(
    depth: int, activation: type[nn.Module], weights: Init | None = None, norm: type[nn.Module] | None = None
) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(64, 64), *([norm(64)] if norm else []), activation()]
    return initialised(nn.Sequential(*layers, nn.Linear(64, 10)), weights)


def initialised(model: nn.Module, weights: Init | None) -> nn.Module:
    for module in model.modules():
        if weights and isinstance(module, (nn.Linear, nn.Conv2d)):
            weights(module.weight)
            init.zeros_(module.bias)  # type: ignore[arg-type]
    return model


def vgg(norm: bool = False, weights: Init | None = None) -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for inputs, outputs in [(1, 16), (16, 16), *[(16, 32)], *[(32, 32)] * 10]:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]
    return initialised(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), weights)


class Transformer(nn.Module):
    def __init__(self, depth: int, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 128, 0.0, batch_first=True, norm_first=norm_first)
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 10)
        self.body = nn.TransformerEncoder(layer, depth, nn.LayerNorm(32), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x.view(-1, 8, 8))).mean(1))


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "He ReLU, 20 layers": lambda: mlp(20, nn.ReLU, he),
    "Xavier tanh, 20 layers": lambda: mlp(20, nn.Tanh, init.xavier_normal_),
    "torch's default ReLU, 5 layers": lambda: mlp(5, nn.ReLU),
    "BatchNorm, 12 layers": lambda: mlp(12, nn.ReLU, norm=nn.BatchNorm1d),
    "LayerNorm, 12 layers": lambda: mlp(12, nn.GELU, norm=nn.LayerNorm),
    "VGG, He": lambda: vgg(weights=he),
    "VGG, BatchNorm": lambda: vgg(norm=True),
    "pre-LN transformer, 12 blocks": lambda: Transformer(12, True),
    "post-LN transformer, 6 blocks": lambda: Transformer(6, False),
}
BROKEN: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "sigmoid, 8 layers": ("GC101", lambda: mlp(8, nn.Sigmoid)),
    "sigmoid, 20 layers": ("GC101", lambda: mlp(20, nn.Sigmoid)),
    "tanh N(0, 0.01)": ("GC101", lambda: mlp(12, nn.Tanh, normal(0.01))),
    "VGG at torch's default": ("GC101", vgg),
    "torch's default ReLU, 20 layers": ("GC101", lambda: mlp(20, nn.ReLU)),
    "tanh N(0, 1)": ("GC102", lambda: mlp(20, nn.Tanh, normal(1.0))),
    "ReLU, three times He": ("GC102", lambda: mlp(20, nn.ReLU, lambda weight: he(weight).data.mul_(3))),
}


def findings(make: Callable[[], nn.Module]) -> set[str]:
    """Codes of errors and warnings after four steps with a small learning rate."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    with Recorder(model, optimizer) as recorder:
        for _ in range(4):
            optimizer.zero_grad()
            functional.cross_entropy(model(torch.randn(32, 64)), torch.randint(10, (32,))).backward()
            optimizer.step()
    diagnosis = diagnose(recorder.recording(RunInfo("zoo", "cpu", "fp32", 0)), select=("GC101", "GC102"))
    assert not diagnosis.not_evaluated
    return {finding.code for finding in diagnosis.findings if finding.severity is not Severity.INFO}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy(name: str) -> None:
    assert findings(HEALTHY[name]) == set()


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    code, make = BROKEN[name]
    assert findings(make) == {code}
