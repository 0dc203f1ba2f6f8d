from __future__ import annotations

from collections.abc import Sequence

import pytest

from gradcheck_cli.diagnose.rules import saturated_activation
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = saturated_activation.check
FLAT = [2.3] * 30
FALLING = [2.3 - 0.05 * step for step in range(30)]
Fraction = float | Sequence[float]


def sequence(
    fractions: Sequence[Fraction], *, kind: str = "tanh", decades: float = 0.0, loss: Sequence[float] = FLAT
) -> Recording:
    """Layers net.0, net.2 ... each before a function; through them the gradient loses so many decades."""
    layers = [f"net.{2 * index}" for index in range(len(fractions))]
    slope = decades / max(1, len(layers) - 1)
    recording = make_recording(
        parameters={f"{layer}.weight": (8, 8) for layer in layers},
        modules={f"net.{2 * index + 1}": kind.capitalize() for index in range(len(fractions))},
        output_grad_rms={layer: 10 ** (slope * index - 9) for index, layer in enumerate(layers)},
        loss=loss,
    )
    sites = {Site(f"net.{2 * index + 1}", kind): {"saturated": value} for index, value in enumerate(fractions)}
    return with_signals(recording, activations=sites)


def called(
    fractions: Sequence[float], *, kind: str = "tanh", input_rms: float = 1.0, decades: float = 0.0
) -> Recording:
    """Layers fc0, fc1 ..., after each of which the model's forward calls a function."""
    layers = [f"fc{index}" for index in range(len(fractions))]
    slope = decades / (len(layers) - 1)
    recording = make_recording(
        parameters={f"{layer}.weight": (8, 8) for layer in layers},
        output_grad_rms={layer: 10 ** (slope * index - 9) for index, layer in enumerate(layers)},
        loss=FLAT,
    )
    sites = {Site("", kind, call): {"saturated": value} for call, value in enumerate(fractions)}
    return with_signals(recording, activations=sites, input_rms=dict.fromkeys(layers, input_rms))


def test_a_group_that_is_saturated_where_the_gradient_vanishes_is_an_error() -> None:
    (found,) = findings(RULE, sequence([0.95] * 6, decades=5.0))
    assert (found.severity, found.layer) == (Severity.ERROR, "net.*")
    assert "95% of the elements of the tanh behind net.0" in found.message
    assert found.evidence["saturated"] == [0.95] * 6
    assert found.evidence["layers"] == [f"net.{2 * index}" for index in range(6)]


@pytest.mark.parametrize("decades", [-3.0, 5.0])
def test_90_percent_itself_is_a_warning(decades: float) -> None:
    (found,) = findings(RULE, sequence([0.9] * 6, decades=decades))
    assert found.severity is Severity.WARNING


def test_without_an_abnormal_slope_it_is_a_warning() -> None:
    (found,) = findings(RULE, sequence([0.95] * 6))
    assert found.severity is Severity.WARNING


def test_half_is_silent() -> None:
    assert silent(RULE, sequence([0.5] * 6, decades=5.0))
    assert findings(RULE, sequence([0.51] * 6))


def test_one_saturated_layer_of_many_is_named() -> None:
    (found,) = findings(RULE, sequence([0.98, 0.02, 0.0, 0.0, 0.0], decades=5.0))
    assert (found.severity, found.layer) == (Severity.WARNING, "net.0")


def test_it_is_the_median_over_the_probed_steps_that_counts() -> None:
    assert silent(RULE, sequence([[0.9, 0.9, 0.1, 0.1, 0.1], 0.0]))


def test_saturation_that_comes_while_the_loss_falls_is_info() -> None:
    later = [0.1, 0.6, 0.6, 0.6, 0.6]
    assert findings(RULE, sequence([later, later, 0.0], loss=FALLING))[0].severity is Severity.INFO
    assert findings(RULE, sequence([later, later, 0.0]))[0].severity is Severity.WARNING
    assert findings(RULE, sequence([0.6, 0.6, 0.0], loss=FALLING))[0].severity is Severity.WARNING


def test_an_output_may_be_saturated() -> None:
    assert silent(RULE, sequence([0.0, 0.0, 0.99], kind="sigmoid"))
    assert silent(RULE, sequence([0.0, 0.0, 0.99], kind="sigmoid", loss=FALLING))


def test_a_gate_may_be_saturated() -> None:
    """A squeeze-and-excitation block, whose sigmoid stands last in a sequence with a name."""
    parameters = {f"blocks.{index}.gate.{place}.weight": (8, 8) for index in range(3) for place in (0, 2)}
    modules = {f"blocks.{index}.gate.3": "Sigmoid" for index in range(3)}
    sites = {Site(f"blocks.{index}.gate.3", "sigmoid"): {"saturated": 0.95} for index in range(3)}
    assert silent(RULE, with_signals(make_recording(parameters=parameters, modules=modules), activations=sites))


def test_the_last_of_a_block_in_a_sequence_of_blocks_is_between_layers() -> None:
    parameters = {f"blocks.{index}.0.weight": (8, 8) for index in range(2)}
    modules = {f"blocks.{index}.1": "Sigmoid" for index in range(2)}
    sites = {Site(f"blocks.{index}.1", "sigmoid"): {"saturated": 0.95} for index in range(2)}
    recording = with_signals(make_recording(parameters=parameters, modules=modules, loss=FLAT), activations=sites)
    (found,) = findings(RULE, recording)
    assert found.layer == "blocks.0.0"


def test_a_tanh_that_is_called_counts_where_the_next_layer_gets_what_it_returns() -> None:
    assert findings(RULE, called([0.98, 0.0, 0.0, 0.0], input_rms=0.98))[0].layer == "fc0"
    assert silent(RULE, called([0.98, 0.0, 0.0, 0.0], input_rms=0.5))
    assert silent(RULE, called([0.98, 0.0, 0.0, 0.0], input_rms=3.0))
    assert silent(RULE, called([0.98, 0.0, 0.0, 0.0], kind="sigmoid", input_rms=0.98))


def test_functions_that_may_be_gates_count_where_the_slope_is_abnormal() -> None:
    assert findings(RULE, called([0.95] * 6, kind="sigmoid", decades=5.0))[0].severity is Severity.ERROR
    assert silent(RULE, called([0.95] * 6, kind="sigmoid", decades=2.0))
    assert silent(RULE, called([0.95, 0.95, 0.0, 0.0, 0.0], kind="sigmoid", decades=5.0))


def test_softmax_and_relu_are_not_judged() -> None:
    assert silent(RULE, sequence([0.99] * 6, kind="softmax", decades=5.0))
    assert silent(RULE, sequence([float("nan")] * 6, kind="relu", decades=5.0))


def test_relu6_has_a_hint_of_its_own() -> None:
    assert "beyond 6" in findings(RULE, sequence([0.8, 0.8, 0.0], kind="relu6"))[0].hint


def test_it_says_when_it_cannot_judge() -> None:
    assert "older version" in reasons(RULE, make_recording())[0]
    assert "no step" in reasons(RULE, with_signals(make_recording(probe_steps=[])))[0]
    assert "--eager" in reasons(RULE, with_signals(make_recording(compiled=["fc1"])))[0]
