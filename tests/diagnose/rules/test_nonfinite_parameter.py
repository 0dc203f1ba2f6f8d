from __future__ import annotations

import math

from gradcheck_cli.diagnose.rules import nonfinite_parameter
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = nonfinite_parameter.check


def test_finite_parameters_get_nothing() -> None:
    assert silent(RULE, make_recording())


def test_the_first_step_and_its_parameters_are_named() -> None:
    norms = {"fc1.bias": [1.0] * 4 + [math.nan], "fc2.weight": [1.0] * 3 + [math.inf, math.nan]}
    (found,) = findings(RULE, make_recording(steps=5, parameter_norm=norms))
    assert (found.severity, found.step, found.layer) == (Severity.ERROR, 3, "fc2")
    assert found.evidence["parameters"] == ["fc2.weight"]
    assert "earlier checkpoint" in found.hint


def test_the_last_update_is_looked_at_too() -> None:
    (found,) = findings(RULE, make_recording(final_parameter_norm={"fc1.weight": math.nan}))
    assert found.evidence["after_last_step"] is True
    assert "after the last step (29)" in found.message


def test_from_the_start_it_is_the_initialisation() -> None:
    (found,) = findings(RULE, make_recording(parameter_norm={"fc1.weight": math.nan}))
    assert found.evidence["from_start"] is True
    assert "initialisation" in found.hint


def test_no_steps_at_all() -> None:
    assert reasons(RULE, make_recording(steps=0))
