"""When a residual stream counts as growing too fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import residual_growth
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals

RULE = residual_growth.check


def stack(rms: Sequence[float], share: float = 0.7, **changes: Any) -> Recording:
    blocks = {f"blocks.{i}": (value, share, float("nan")) for i, value in enumerate(rms)}
    return with_signals(make_recording(**changes), blocks=blocks)


def powers(factor: float, blocks: int) -> list[float]:
    return [factor**i for i in range(blocks)]


def severities(recording: Recording) -> list[Severity]:
    return [finding.severity for finding in findings(RULE, recording)]


@pytest.mark.parametrize("blocks", [3, 4, 6, 12, 24, 48, 100])
def test_growth_up_to_linear_is_healthy_at_any_depth(blocks: int) -> None:
    depth = np.arange(1, blocks + 1)
    for rms in (np.ones(blocks), np.sqrt(depth), depth, 1e6 * depth, depth[::-1]):
        assert silent(RULE, stack(rms.tolist()))


@pytest.mark.parametrize("blocks", [12, 24, 48])
def test_a_variance_that_doubles_with_every_block_is_not(blocks: int) -> None:
    """As He's initialisation without normalisation does; RMS times 1.41, and more where biases add to it."""
    assert severities(stack(powers(1.75, blocks))) == [Severity.WARNING]


@pytest.mark.parametrize(
    ("rms", "expected"),
    [
        (powers(1.2, 8), []),
        ([1, 1, 1, 1, 2, 4, 7.9, 7.9], []),
        ([1, 1, 1, 1, 2, 4, 8.1, 8.1], [Severity.INFO]),
        ([1, 1, 1, 1, 10, 20, 50, 79], [Severity.INFO]),
        ([1, 1, 1, 1, 10, 20, 50, 81], [Severity.WARNING]),
        ([1, 10, 20, 40, 50, 60, 70, 200], []),
    ],
)
def test_thresholds(rms: Sequence[float], expected: list[Severity]) -> None:
    assert severities(stack(rms)) == expected


def test_the_finding_has_the_numbers() -> None:
    (finding,) = findings(RULE, stack(powers(2.0, 11)))
    assert finding.layer == "blocks.*"
    assert finding.step == 0
    assert finding.evidence["growth"] == pytest.approx(1024)
    assert finding.evidence["growth_from_the_middle"] == pytest.approx(32)
    assert finding.evidence["median_branch_share"] == pytest.approx(0.7)
    assert "2.00 times with each of 11 blocks" in finding.message


def test_only_the_first_step_counts() -> None:
    blocks = {f"blocks.{i}": ([1.0, 3.0**i], 0.5, float("nan")) for i in range(12)}
    assert silent(RULE, with_signals(make_recording(probe_steps=[0, 10]), blocks=blocks))


def test_blocks_that_replace_their_input_are_not_residual() -> None:
    assert silent(RULE, stack(powers(3.0, 12), share=1.05))
    assert silent(RULE, stack(powers(3.0, 12), share=float("nan")))


def test_what_was_not_measured_is_not_judged() -> None:
    assert reasons(RULE, make_recording())
    assert reasons(RULE, with_signals(make_recording(probe_steps=[])))
    assert reasons(RULE, stack(powers(3.0, 12), checkpoint="last.pt"))
    assert silent(RULE, stack([]))
    assert silent(RULE, stack([float("nan")] * 5))
    assert silent(RULE, stack([0.0] * 5))
