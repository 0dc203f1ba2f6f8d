from __future__ import annotations

import math

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import weight_blowup
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = weight_blowup.check


def test_steady_weights_get_nothing() -> None:
    assert silent(RULE, make_recording())


def test_a_value_beyond_a_million_is_a_warning() -> None:
    assert silent(RULE, make_recording(parameter_max={"fc1.bias": 1e6}))
    (found,) = findings(RULE, make_recording(parameter_max={"fc1.bias": 1.1e6}))
    assert (found.severity, found.layer) == (Severity.WARNING, "fc1")
    assert found.evidence["largest_value"] == 1.1e6


def test_a_weight_that_grows_tenfold_is_a_warning() -> None:
    assert silent(RULE, make_recording(parameter_norm={"fc1.weight": np.geomspace(1, 9.9, 30)}))
    (found,) = findings(RULE, make_recording(parameter_norm={"fc1.weight": np.geomspace(1, 10.1, 30)}))
    assert found.evidence["growth"] == pytest.approx(10.1)
    assert found.evidence["parameters"] == ["fc1.weight"]


def test_the_last_update_counts() -> None:
    recording = make_recording(parameter_norm={"fc1.weight": 1.0}, final_parameter_norm={"fc1.weight": 20.0})
    assert findings(RULE, recording)


def test_what_begins_at_zero_may_grow() -> None:
    for start in (0.0, 1e-6):
        assert silent(RULE, make_recording(parameter_norm={"fc1.weight": [start, *np.linspace(0.1, 1, 29)]}))


def test_a_bias_may_grow() -> None:
    assert silent(RULE, make_recording(parameter_norm={"fc1.bias": np.geomspace(0.03, 3, 30)}))


def test_the_worst_is_named_and_all_are_listed() -> None:
    norms = {"fc1.weight": np.geomspace(1, 20, 30), "fc2.weight": np.geomspace(1, 2000, 30)}
    (found,) = findings(RULE, make_recording(parameter_norm=norms))
    assert found.layer == "fc2"
    assert found.evidence["parameters"] == ["fc2.weight", "fc1.weight"]


def test_growth_into_nan_is_seen_up_to_the_last_finite_norm() -> None:
    grown = make_recording(steps=4, parameter_norm={"fc1.weight": [1.0, 5.0, 50.0, math.nan]})
    assert findings(RULE, grown)[0].evidence["growth"] == 50.0
    assert silent(RULE, make_recording(steps=2, parameter_norm={"fc1.weight": [math.nan, math.nan]}))


def test_no_steps_at_all() -> None:
    assert reasons(RULE, make_recording(steps=0))


@pytest.mark.parametrize(("rms", "expected"), [(0.95e-3, 0), (1.05e-3, 1)])
def test_growth_is_judged_from_an_rms_of_a_thousandth(rms: float, expected: int) -> None:
    norms = {"fc1.weight": rms * np.sqrt(32) * np.geomspace(1, 20, 30)}
    assert len(findings(RULE, make_recording(parameter_norm=norms))) == expected


@pytest.mark.parametrize(("last", "expected"), [(0.1, 0), (0.15, 1)])
def test_a_layer_that_begins_tiny_is_compared_with_a_tenth_of_the_usual_size(last: float, expected: int) -> None:
    rms = np.geomspace(0.00125, last, 30)  # a policy's head: orthogonal, gain 0.01; 1 / sqrt(64) is 0.125
    grown = make_recording(parameters={"actor.weight": (2, 64)}, parameter_norm={"actor.weight": rms * np.sqrt(128)})
    recording = with_signals(grown, weights={"actor.weight": (0.00125, 64.0, 2.0)})
    assert len(findings(RULE, recording)) == expected
