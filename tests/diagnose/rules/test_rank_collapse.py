"""When tokens count as collapsed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import rank_collapse
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import Site
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = rank_collapse.check
PROBES = [0, 1, 2, 10, 20, 29]
STUCK = np.full(30, 2.3)


def stack(first: Any, last: Any, attends: bool = True, **changes: Any) -> Recording:
    """Four blocks with these cosines at the ends, on every one of PROBES or on each."""
    middle = 0.5
    cosines = [first, middle, middle, last]
    recording = make_recording(probe_steps=PROBES, **changes)
    return with_signals(
        recording,
        blocks={f"blocks.{i}": (1.0, 0.3, cosine) for i, cosine in enumerate(cosines)},
        attention={Site("blocks.0.attention", "sdpa"): (0.8, 0.9)} if attends else {},
    )


def severities(recording: Recording) -> list[Severity]:
    return [finding.severity for finding in findings(RULE, recording)]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0.5, 0.957, []),
        (0.5, 0.975, [Severity.WARNING]),
        (0.5, 0.995, [Severity.ERROR]),
        (0.89, 0.991, [Severity.ERROR]),
        (0.95, 0.991, [Severity.WARNING]),
        (0.97, 0.9999, [Severity.ERROR]),
        (0.97, 0.98, []),
        (0.999, 0.99999, []),
        (1.0, 1.0, []),
    ],
)
def test_thresholds_at_first(first: float, last: float, expected: list[Severity]) -> None:
    assert severities(stack(first, last)) == expected


def test_the_finding_names_the_stack_and_both_ends() -> None:
    (finding,) = findings(RULE, stack(0.5, 0.999))
    assert finding.layer == "blocks.*"
    assert finding.step == 0
    assert (finding.evidence["first_cosine"], finding.evidence["last_cosine"]) == (0.5, 0.999)
    assert "blocks.0" in finding.message
    assert "blocks.3" in finding.message
    assert "pre-LN" in finding.hint


def test_a_language_model_that_learns_frequencies_first_is_healthy() -> None:
    passing = [0.3, 0.9, 0.99, 0.996, 0.8, 0.4]
    assert silent(RULE, stack(0.3, passing, loss=STUCK))
    assert silent(RULE, stack(0.3, [0.3, 0.9, 0.99, 0.996, 0.997, 0.998]))  # while the loss falls


def test_a_collapse_that_stays_while_the_loss_does_not_fall() -> None:
    late = [0.3, 0.9, 0.99, 0.996, 0.999, 0.999]
    assert severities(stack(0.3, late, loss=STUCK)) == [Severity.WARNING]
    assert severities(stack(0.3, 0.999, loss=STUCK, checkpoint="last.pt")) == [Severity.WARNING]
    assert silent(RULE, stack(0.3, 0.999, checkpoint="last.pt"))


def test_two_stacks_are_judged_by_themselves() -> None:
    blocks = {f"encoder.{i}": (1.0, 0.3, 0.3) for i in range(3)}
    blocks |= {f"decoder.{i}": (1.0, 0.3, cosine) for i, cosine in enumerate([0.3, 0.9, 0.999])}
    (finding,) = findings(RULE, with_signals(make_recording(), blocks=blocks))
    assert finding.layer == "decoder.*"


def test_channels_of_convolutions_are_no_tokens() -> None:
    convolutions = {"modules": {"blocks.0.conv": "Conv1d"}}
    assert silent(RULE, stack(0.3, 0.999, attends=False, **convolutions))
    assert severities(stack(0.3, 0.999, **convolutions)) == [Severity.ERROR]
    assert severities(stack(0.3, 0.999, attends=False)) == [Severity.ERROR]


def test_what_was_not_measured_is_not_judged() -> None:
    assert reasons(RULE, make_recording())
    assert reasons(RULE, with_signals(make_recording(probe_steps=[])))
    assert silent(RULE, stack(float("nan"), float("nan")))
