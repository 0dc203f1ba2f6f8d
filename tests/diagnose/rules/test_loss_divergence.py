from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import loss_divergence
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording, ripple

RULE = loss_divergence.check


def test_a_falling_loss_gets_nothing() -> None:
    assert silent(RULE, make_recording())


def test_a_loss_that_rises_and_rises_is_an_error() -> None:
    (found,) = findings(RULE, make_recording(steps=20, loss=1.1 ** np.arange(20)))
    assert found.severity is Severity.ERROR
    assert found.evidence["start"] == pytest.approx(1.1)
    assert found.evidence["limit"] == pytest.approx(3.3)
    assert found.evidence["end"] == pytest.approx(1.1**18)
    assert found.evidence["trend_p"] < 0.05


def test_three_times_the_start_is_the_limit() -> None:
    # The medians of three of a rising line are its second value, 1 + d, and its last but one, 1 + 18 d.
    below, above = 1 + 0.133 * np.arange(20), 1 + 0.134 * np.arange(20)
    assert below[-2] < 3 * below[1]
    assert above[-2] > 3 * above[1]
    assert silent(RULE, make_recording(steps=20, loss=below))
    assert findings(RULE, make_recording(steps=20, loss=above))


def test_a_high_plateau_is_not_still_rising() -> None:
    loss = np.concatenate([np.full(3, 1.0), 10 * ripple(40)])
    assert silent(RULE, make_recording(steps=43, loss=loss))


def test_a_rise_that_ends_in_nan_needs_no_trend() -> None:
    loss = [1.0, 1.0, 50.0, 60.0, 55.0, float("nan"), float("nan")]
    (found,) = findings(RULE, make_recording(steps=7, loss=loss))
    assert found.step == 5
    assert found.evidence["became_nonfinite"] is True


def test_a_nan_out_of_a_calm_loss_is_no_divergence() -> None:
    assert silent(RULE, make_recording(steps=20, loss=[1.0] * 12 + [float("nan")] * 8))


def test_negative_losses_diverge_by_twice_their_size() -> None:
    slow, fast = np.linspace(-10.0, 9.0, 30), np.linspace(-10.0, 60.0, 30)
    assert silent(RULE, make_recording(steps=30, loss=slow))
    assert findings(RULE, make_recording(steps=30, loss=fast))


def test_a_loss_that_swings_around_zero_has_no_start_to_be_compared_with() -> None:
    """The critic of a Wasserstein GAN starts near zero and finds its level."""
    loss = np.concatenate([[0.001, -0.002, 0.001], np.linspace(-0.5, 0.9, 40)])
    assert silent(RULE, make_recording(steps=43, loss=loss))
    assert reasons(RULE, make_recording(loss=[0.0] * 3 + [0.1] * 27)) == [
        "the loss starts at 0, so there is no scale to compare its rise with"
    ]


def test_too_few_steps_are_said() -> None:
    rising = 10.0 ** np.arange(9)
    assert reasons(RULE, make_recording(steps=9, loss=rising)) == ["9 steps with a finite loss, 10 are needed"]
    assert "before the first non-finite one, 4 are needed" in reasons(RULE, make_recording(loss=float("nan")))[0]
    assert reasons(RULE, make_recording(steps=0))


@pytest.mark.parametrize(("second_half", "expected"), [([6, 7, 8, 9, 10], 1), ([7, 6, 8, 9, 10], 0)])
def test_the_rise_of_the_second_half_must_be_significant(second_half: list[float], expected: int) -> None:
    """All ten pairs of five values rise: p = 0.027. With one pair that falls, p = 0.086."""
    assert len(findings(RULE, make_recording(steps=10, loss=[1, 1, 1, 1, 1, *second_half]))) == expected
