from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import recurrent_spectral_radius
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import RecurrentMatrix, Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = recurrent_spectral_radius.check


def recorded(*matrices: RecurrentMatrix, growth: float = 0.0) -> Recording:
    """A recording with these matrices of a module called rnn, its gradient growing through time by so many decades."""
    base = make_recording(parameters={"rnn.weight_hh_l0": (32, 8)})
    rms = list(np.geomspace(10.0**growth, 1, 30))
    return with_signals(base, recurrent=matrices, recurrence={Site("rnn", "rnn"): rms})


def plain(radius: float, norm: float, nonlinearity: str = "tanh") -> RecurrentMatrix:
    return RecurrentMatrix("rnn.weight_hh_l0", "", nonlinearity, radius, norm)


def lstm(radius: float, norm: float) -> list[RecurrentMatrix]:
    gates = {"input": "sigmoid", "forget": "sigmoid", "cell": "tanh", "output": "sigmoid"}
    return [RecurrentMatrix("rnn.weight_hh_l0", gate, kind, radius, norm) for gate, kind in gates.items()]


@pytest.mark.parametrize(("radius", "norm"), [(0.6, 1.12), (1.0, 1.0), (1.07, 2.0), (1.19, 2.2)])
def test_usual_initialisations_get_nothing(radius: float, norm: float) -> None:
    assert silent(RULE, recorded(plain(radius, norm)))
    assert silent(RULE, recorded(plain(radius, norm, "relu")))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_matrix_that_enlarges_is_information(nonlinearity: str) -> None:
    (found,) = findings(RULE, recorded(plain(1.21, 2.3, nonlinearity)))
    assert found.severity is Severity.INFO
    assert found.layer == "rnn"
    assert (found.evidence["spectral_radius"], found.evidence["spectral_norm"]) == (1.21, 2.3)


def test_a_matrix_that_forgets_at_once_is_information() -> None:
    (found,) = findings(RULE, recorded(plain(0.1, 0.2)))
    assert "forgets" in found.message
    assert silent(RULE, recorded(plain(0.3, 0.51)))


def test_gates_are_named_only_where_the_gradient_grows_through_time() -> None:
    assert silent(RULE, recorded(*lstm(6, 11)))
    (found,) = findings(RULE, recorded(*lstm(6, 11), growth=3))
    assert found.evidence["gate"] == "cell"  # the slope of the others' sigmoid is a quarter
    assert silent(RULE, recorded(*lstm(0.6, 1.12), growth=3))


def test_the_worst_layer_of_a_module_is_named() -> None:
    second = RecurrentMatrix("rnn.weight_hh_l1", "", "tanh", 4.0, 7.0)
    (found,) = findings(RULE, recorded(plain(2, 4), second))
    assert found.evidence["parameter"] == "rnn.weight_hh_l1"


def test_an_unknown_radius_says_nothing() -> None:
    assert silent(RULE, recorded(plain(float("nan"), 1.5)))
    assert silent(RULE, recorded(plain(float("nan"), float("nan"))))


def test_no_recurrent_matrix() -> None:
    assert silent(RULE, recorded())
    assert reasons(RULE, make_recording())
