from __future__ import annotations

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rules import large_gradient
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = large_gradient.check


def test_at_the_limit_is_silent_above_is_info() -> None:
    assert silent(RULE, make_recording(grad_norm=100.0))
    (found,) = findings(RULE, make_recording(steps=4, grad_norm=[1.0, 101.0, 250.0, 2.0]))
    assert (found.severity, found.step) == (Severity.INFO, 2)
    assert found.evidence["steps_above"] == 2
    assert found.evidence["limit"] == 100.0
    assert found.evidence["grad_norm"] == 250.0


def test_the_limit_can_be_set() -> None:
    recording = make_recording(grad_norm=5.0)
    assert findings(RULE, recording, Limits(large=4.0))
    assert not findings(RULE, recording, Limits(large=6.0))


def test_steps_that_the_scaler_skipped_or_that_are_not_finite_do_not_count() -> None:
    norms = [1e6, float("inf"), float("nan"), 1.0]
    assert silent(RULE, make_recording(steps=4, grad_norm=norms, skipped=[0], uses_scaler=True))


def test_without_a_finite_norm_it_says_so() -> None:
    assert reasons(RULE, make_recording(steps=0))
    assert reasons(RULE, make_recording(steps=2, grad_norm=float("nan")))
