from __future__ import annotations

from typing import Any

import pytest

from gradcheck_cli.diagnose.rules import constant_output
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = constant_output.check
FLAT = [2.3] * 50
NAN = float("nan")


def recorded(variation: Any, same: Any = NAN, classes: Any = NAN, **recording: Any) -> Recording:
    """50 steps, seven of them probed."""
    base = make_recording(**{"steps": 50, **recording})
    return with_signals(base, output_variation=variation, same_class=same, classes=classes)


@pytest.mark.parametrize("variation", [0.04, 0.5, 1.0])
def test_outputs_that_vary_get_nothing(variation: float) -> None:
    assert silent(RULE, recorded(variation, same=0.4, classes=10))


@pytest.mark.parametrize("classes", [10, NAN])
@pytest.mark.parametrize("variation", [0.0, 5e-8, 1e-6])
def test_a_constant_output_is_an_error(variation: float, classes: float) -> None:
    (found,) = findings(RULE, recorded(variation, classes=classes))
    assert found.severity is Severity.ERROR
    assert found.evidence["largest_variation"] == variation


def test_nearly_constant_scores_are_a_warning() -> None:
    (found,) = findings(RULE, recorded(5e-5, same=0.5, classes=10))
    assert found.severity is Severity.WARNING
    assert silent(RULE, recorded(2e-4, same=0.5, classes=10))


def test_a_regression_may_have_a_large_mean() -> None:
    assert silent(RULE, recorded(5e-5))


def test_a_last_layer_may_begin_at_zero() -> None:
    assert silent(RULE, recorded([0.0] + [0.3] * 6, classes=10))


def test_one_step_with_an_output_that_varies_is_enough() -> None:
    assert silent(RULE, recorded([0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3], classes=10))


def test_a_collapse_after_the_first_step_is_found() -> None:
    assert findings(RULE, recorded([0.5] + [0.0] * 6, classes=10))


def test_one_class_for_all_while_the_loss_is_flat() -> None:
    (found,) = findings(RULE, recorded(0.005, same=1.0, classes=10, loss=FLAT))
    assert found.severity is Severity.WARNING
    assert "same class" in found.message


@pytest.mark.parametrize(
    ("variation", "same", "loss"),
    [(0.005, 1.0, None), (0.02, 1.0, FLAT), (0.005, [1.0] * 6 + [0.9], FLAT)],
    ids=["the loss falls", "scores that differ", "another class at last"],
)
def test_one_class_for_all_that_is_healthy(variation: float, same: Any, loss: Any) -> None:
    assert silent(RULE, recorded(variation, same=same, classes=10, loss=loss))


def test_scores_that_are_nan_are_an_error() -> None:
    (found,) = findings(RULE, recorded([0.5] * 6 + [NAN], same=1.0, classes=[10.0] * 7))
    assert found.severity is Severity.ERROR
    assert found.step == 40


def test_what_cannot_be_judged() -> None:
    assert reasons(RULE, make_recording())
    assert reasons(RULE, recorded(NAN)) == ["outputs of a batch were seen on 0 probed steps after the first"]
    assert reasons(RULE, recorded(0.0, probe_steps=[0, 1]))
    assert findings(RULE, recorded(0.0, probe_steps=[0, 1, 2]))


def test_examples_that_are_all_alike() -> None:
    (found,) = findings(RULE, with_signals(make_recording(steps=50), output_variation=0.0, input_variation=0.0))
    assert found.severity is Severity.WARNING
    assert "all examples of a batch are alike" in found.message
