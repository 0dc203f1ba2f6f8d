from __future__ import annotations

import math

from gradcheck_cli.diagnose.rules import nonfinite_loss
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = nonfinite_loss.check


def test_a_finite_loss_gets_nothing() -> None:
    assert silent(RULE, make_recording(loss=1e300))


def test_the_first_step_is_named() -> None:
    (found,) = findings(RULE, make_recording(steps=20, loss=[1.0] * 17 + [math.inf, math.nan, 1.0]))
    assert (found.severity, found.step) == (Severity.ERROR, 17)
    assert found.evidence["batch"] == 1
    assert found.evidence["value"] == "infinite"
    assert found.evidence["nonfinite_steps"] == 2


def test_a_bad_batch_is_named_as_the_cause() -> None:
    (found,) = findings(RULE, make_recording(steps=2, loss=[1.0, math.nan], nonfinite_inputs={1: 4}))
    assert "batch itself" in found.message
    assert found.hint.startswith("clean the data")


def test_no_steps_at_all() -> None:
    assert reasons(RULE, make_recording(steps=0))
