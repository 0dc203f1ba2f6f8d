from __future__ import annotations

from gradcheck_cli.diagnose.rules import loss_scale_collapse
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = loss_scale_collapse.check


def test_without_a_scaler_there_is_nothing_to_say() -> None:
    assert silent(RULE, make_recording())
    assert silent(RULE, make_recording(steps=0))


def test_skips_at_the_start_are_normal() -> None:
    assert silent(RULE, make_recording(uses_scaler=True, skipped=range(10)))


def test_more_than_a_quarter_of_the_later_steps_is_an_error() -> None:
    assert silent(RULE, make_recording(uses_scaler=True, skipped=range(10, 15)))
    (found,) = findings(RULE, make_recording(uses_scaler=True, skipped=range(10, 16)))
    assert found.severity is Severity.ERROR
    assert (found.evidence["skipped"], found.evidence["steps"]) == (6, 20)


def test_a_scale_below_one_is_an_error_however_short_the_run() -> None:
    assert silent(RULE, make_recording(loss_scale=1.0))
    assert findings(RULE, make_recording(loss_scale=0.9))
    recording = make_recording(steps=4, loss_scale=[4.0, 2.0, 1.0, 0.5])
    (found,) = findings(RULE, recording)
    assert found.step == 3
    assert found.evidence["smallest_scale"] == 0.5
    assert not reasons(RULE, recording)


def test_too_few_steps_are_said() -> None:
    assert reasons(RULE, make_recording(steps=13, uses_scaler=True)) == ["13 steps, 14 are needed"]
    assert silent(RULE, make_recording(steps=14, uses_scaler=True))
    assert reasons(RULE, make_recording(steps=0, uses_scaler=True))
