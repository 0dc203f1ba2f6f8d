"""GC612 dominated-batch"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gradcheck_cli.diagnose.rules import dominated_batch
from gradcheck_cli.examination import Examination, SampleGradients
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording

RULE = dominated_batch.check
STEP = 20


def spiky(height: float = 20.0) -> list[float]:
    return [1.0] * STEP + [height] + [1.0] * 9


def looked_at(shares: Sequence[float], norms: Sequence[float] | None = None, **members: Any) -> Recording:
    """A recording with a spike at STEP, batch 4 of epoch 1, whose samples have these shares of its gradient."""
    count = len(shares)
    samples = SampleGradients(
        **{
            "step": STEP,
            "batches": (4,) * count,
            "rows": tuple(range(count)),
            "norms": (1.0,) * count,
            "shares": tuple(shares),
            "agreement": 1.0,
            "at_step": True,
            **members,
        }
    )
    return replace(make_recording(grad_norm=norms or spiky()), examination=Examination(samples=samples))


def one_of(count: int, share: float, many: int = 1) -> list[float]:
    """`many` samples from row 7 on have together this share, the others the rest."""
    return [share / many if 7 <= row < 7 + many else (1 - share) / (count - many) for row in range(count)]


def test_one_sample_is_named_with_its_batch() -> None:
    (found,) = findings(RULE, looked_at(one_of(32, 0.9)))
    assert found.severity is Severity.WARNING
    assert found.step == STEP
    assert (found.evidence["rows"], found.evidence["batches"]) == ([7], [4])
    assert (found.evidence["epoch"], found.evidence["batch"]) == (1, 4)
    assert "row 7" in found.message
    assert "batch 4" in found.message
    assert "2 to 6" in found.hint


def test_half_of_the_gradient_is_the_limit() -> None:
    assert silent(RULE, looked_at(one_of(32, 0.49)))
    assert findings(RULE, looked_at(one_of(32, 0.51)))


def test_few_are_a_twentieth() -> None:
    for many, found in ((5, True), (10, False)):
        assert bool(findings(RULE, looked_at(one_of(100, 0.9, many)))) is found
    (found_five,) = findings(RULE, looked_at(one_of(100, 0.9, 5)))
    assert found_five.evidence["rows"] == [7, 8, 9, 10, 11]


def test_samples_with_an_ordinary_share_are_not_named() -> None:
    shares = [0.02] * 40
    shares[3], shares[4] = 0.52, -0.28 + 0.02
    (found,) = findings(RULE, looked_at(shares))
    assert found.evidence["rows"] == [3]


def test_with_several_batches_each_sample_is_named_with_its_own() -> None:
    (found,) = findings(RULE, looked_at(one_of(32, 0.9), batches=(4,) * 16 + (5,) * 16, rows=tuple(range(16)) * 2))
    assert "row 7 of batch 4" in found.message


@pytest.mark.parametrize(
    ("norms", "at_step"), [(spiky(9.0), True), ([30.0, *spiky()[1:]], True), (spiky(), False)], ids=str
)
def test_smaller_spikes_and_later_weights_are_an_info(norms: list[float], at_step: bool) -> None:
    (found,) = findings(RULE, looked_at(one_of(32, 0.9), norms, at_step=at_step))
    assert found.severity is Severity.INFO
    assert ("after the run" in found.message) is not at_step


def test_without_a_spike_nothing_is_asked() -> None:
    assert silent(RULE, make_recording())
    assert silent(RULE, make_recording(grad_norm=spiky(4.9)))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"reason": "its batches were written to since"}, "written to since"),
        ({"agreement": 0.3}, "depends on the others"),
        ({"agreement": 2.5}, "depends on the others"),
        ({"agreement": float("nan")}, "depends on the others"),
        ({"step": 3}, "not kept"),
    ],
    ids=str,
)
def test_what_can_not_be_judged_is_said(members: dict[str, Any], reason: str) -> None:
    (said,) = reasons(RULE, looked_at(one_of(32, 0.9), **members))
    assert reason in said
    assert f"step {STEP}" in said


def test_small_batches_and_runs_are_not_judged() -> None:
    assert "15 samples" in reasons(RULE, looked_at(one_of(15, 0.9)))[0]
    assert findings(RULE, looked_at(one_of(16, 0.9)))
    assert "not kept" in reasons(RULE, make_recording(grad_norm=spiky()))[0]
    assert "6 are needed" in reasons(RULE, make_recording(steps=5))[0]
    assert silent(RULE, make_recording(steps=6))
