from __future__ import annotations

import math

from gradcheck_cli.diagnose.rules import nonfinite_gradient
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = nonfinite_gradient.check


def only(step: int, value: float, steps: int = 30) -> list[float]:
    return [value if index == step else 0.0 for index in range(steps)]


def test_finite_gradients_get_nothing() -> None:
    assert silent(RULE, make_recording())


def test_the_affected_layer_nearest_to_the_loss_is_named() -> None:
    nonfinite = {"fc1.weight": only(5, 3), "fc2.bias": only(5, 1)}
    (found,) = findings(RULE, make_recording(nonfinite=nonfinite))
    assert (found.severity, found.step, found.layer) == (Severity.ERROR, 5, "fc2")
    assert found.evidence["parameters"] == ["fc1.weight", "fc2.bias"]
    assert found.evidence["modules"] == ["fc1", "fc2"]
    (swapped,) = findings(RULE, make_recording(nonfinite=nonfinite, probed=["fc2", "fc1"]))
    assert swapped.layer == "fc1"


def test_a_loss_that_was_not_finite_comes_first() -> None:
    loss = [1.0] * 5 + [math.nan] * 25
    (found,) = findings(RULE, make_recording(loss=loss, nonfinite={"fc1.weight": only(5, 3)}))
    assert "loss was already not finite" in found.message
    assert "loss first" in found.hint


def test_a_thinned_step_is_known_by_its_norm() -> None:
    norm = [1.0] * 30
    norm[7] = math.nan
    (found,) = findings(RULE, make_recording(grad_norm=norm, recorded=range(0, 30, 2)))
    assert (found.step, found.layer) == (7, None)


def test_a_norm_that_overflowed_over_finite_elements_is_no_finding() -> None:
    norm = [1.0] * 30
    norm[7] = math.inf
    assert silent(RULE, make_recording(grad_norm=norm, norms={"fc1.weight": 1.0}))


def test_steps_that_the_scaler_skipped_are_info() -> None:
    nonfinite = {"fc1.weight": [1, 1, *[0] * 28]}
    (found,) = findings(RULE, make_recording(nonfinite=nonfinite, skipped=[0, 1], loss_scale=65536.0))
    assert found.severity is Severity.INFO
    assert "normal at the start" in found.hint
    assert found.evidence["nonfinite_steps"] == [0, 1]


def test_one_step_that_was_not_skipped_is_an_error() -> None:
    nonfinite = {"fc1.weight": [1, 1, *[0] * 28]}
    (found,) = findings(RULE, make_recording(nonfinite=nonfinite, skipped=[0], loss_scale=65536.0))
    assert found.severity is Severity.ERROR


def test_no_steps_at_all() -> None:
    assert reasons(RULE, make_recording(steps=0))
