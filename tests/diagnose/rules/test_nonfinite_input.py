from __future__ import annotations

from gradcheck_cli.diagnose.rules import nonfinite_input
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = nonfinite_input.check


def test_finite_batches_get_nothing() -> None:
    assert silent(RULE, make_recording())


def test_the_first_batch_is_named_with_the_place_in_it() -> None:
    recording = make_recording(nonfinite_inputs={18: 3, 20: 1}, nonfinite_input="batch[0], sample 5")
    (found,) = findings(RULE, recording)
    assert (found.severity, found.step) == (Severity.ERROR, 18)
    assert found.evidence["elements"] == 3
    assert found.evidence["batch"] == 2
    assert found.evidence["nonfinite_steps"] == [18, 20]
    assert "batch[0], sample 5" in found.message


def test_no_steps_at_all() -> None:
    assert reasons(RULE, make_recording(steps=0))
