from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradcheck_cli.diagnose.rules import dead_units
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.records import Recording, RunInfo, Severity
from gradcheck_cli.signals import Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = dead_units.check
NETWORK = {"net.0.weight": (8, 8), "net.2.weight": (8, 8), "net.4.weight": (8, 8)}


def make(*relus: dict[str, Any]) -> Recording:
    """Layers net.0, net.2, net.4, and a ReLU behind each; of 128 units and 256 samples unless they say otherwise."""
    modules = {f"net.{2 * index + 1}": "ReLU" for index in range(len(relus))}
    defaults = {"units": 128, "samples": 256, "zero": 0.5}
    sites = {Site(f"net.{2 * index + 1}", "relu"): defaults | relu for index, relu in enumerate(relus)}
    return with_signals(make_recording(parameters=NETWORK, modules=modules), activations=sites)


def test_most_units_dead_is_an_error() -> None:
    (found,) = findings(RULE, make({"never_active": 0.1}, {"never_active": 0.875}))
    assert (found.severity, found.layer) == (Severity.ERROR, "net.2")
    assert "112 of 128 units of the relu behind net.2 were never active over 256 examples" in found.message
    assert found.evidence["never_active"] == [0.875]


@pytest.mark.parametrize(
    ("share", "severity"), [(0.69, None), (0.70, Severity.WARNING), (0.84, Severity.WARNING), (0.85, Severity.ERROR)]
)
def test_the_limits(share: float, severity: Severity | None) -> None:
    assert [found.severity for found in findings(RULE, make({"never_active": share}))] == ([severity] * bool(severity))


def test_what_healthy_networks_measure_is_silent() -> None:
    """He's initialisation, and torch's default in a deep network."""
    assert silent(RULE, make({"never_active": 0.32}, {"never_active": 0.51}))


def test_of_few_units_many_are_dead_by_chance() -> None:
    assert silent(RULE, make({"never_active": 0.75, "units": 16}))
    assert silent(RULE, make({"never_active": 0.74, "units": 64}))
    assert findings(RULE, make({"never_active": 0.76, "units": 64}))


def test_with_few_examples_it_says_so_only_where_it_matters() -> None:
    assert "127 examples only" in reasons(RULE, make({"never_active": 0.9, "samples": 127}))[0]
    assert silent(RULE, make({"never_active": 0.5, "samples": 127}))


def test_a_whole_layer_needs_few_examples() -> None:
    (found,) = findings(RULE, make({"never_active": 1.0, "units": 128, "samples": 2}))
    assert found.severity is Severity.ERROR
    assert "all 128 units" in found.message
    assert silent(RULE, make({"never_active": 1.0, "units": 8, "samples": 16}))
    assert silent(RULE, make({"never_active": 1.0, "units": 1, "samples": 1000}))


def test_a_layer_that_dies_during_the_run_is_dead() -> None:
    (found,) = findings(RULE, make({"never_active": 0.0, "zero": [0.5, 0.6, 0.9, 1.0, 1.0]}))
    assert found.severity is Severity.ERROR
    assert silent(RULE, make({"never_active": 0.0, "zero": [0.5, 0.6, 1.0, 0.9, 1.0]}))


def test_zeros_from_the_start_say_nothing_of_units_that_were_not_sampled() -> None:
    assert silent(RULE, make({"never_active": 0.6, "zero": 1.0}))


def test_like_layers_share_a_finding() -> None:
    (found,) = findings(RULE, make({"never_active": 0.9}, {"never_active": 1.0}, {"never_active": 0.2}))
    assert found.layer == "net.*"
    assert found.evidence["layers"] == ["net.0", "net.2"]


def test_it_says_when_it_cannot_judge() -> None:
    assert "older version" in reasons(RULE, make_recording())[0]
    assert "no step" in reasons(RULE, with_signals(make_recording(probe_steps=[])))[0]
    assert "--eager" in reasons(RULE, with_signals(make_recording(compiled=["fc1"])))[0]


class Pair(nn.Module):
    """Two layers behind each of which the same ReLU is used, of channels or of units."""

    def __init__(self, kind: type[nn.Module], *shape: int) -> None:
        super().__init__()
        self.first, self.second = kind(*shape), kind(*shape)
        self.act = nn.ReLU()
        self.head = nn.LazyLinear(2)

    def forward(self, given: Tensor) -> Tensor:
        hidden: Tensor = self.act(self.second(self.act(self.first(given))))
        return self.head(hidden.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "given"),
    [(Pair(nn.Linear, 64, 64), (32, 64)), (Pair(nn.Conv1d, 64, 64, 1), (32, 64, 10))],
    ids=["units", "channels"],
)
def test_of_a_shared_relu_the_call_that_is_dead_is_found(model: Pair, given: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model(torch.randn(given))
    nn.init.constant_(model.second.bias[:60], -20.0)  # type: ignore[index]
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Recorder(model, optimizer) as recorder:
        for _ in range(60):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(torch.randn(given)), torch.randint(2, (32,)))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    (found,) = findings(RULE, recorder.recording(RunInfo("test", "cpu", "fp32", 0)))
    assert (found.severity, found.layer) == (Severity.ERROR, "second")
    assert found.evidence["never_active"] == [60 / 64]
