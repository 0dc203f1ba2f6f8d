from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import loss_spike
from gradcheck_cli.records import Floats, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording, ripple

RULE = loss_spike.check


def falling(steps: int, seed: int = 0, floor: float = 0.05) -> Floats:
    random = np.random.default_rng(seed)
    return (floor + 2.3 * np.exp(-np.arange(steps) / 50)) * random.lognormal(0, 0.2, steps)


@pytest.mark.parametrize("seed", range(20))
def test_the_noise_of_a_healthy_run_is_no_spike(seed: int) -> None:
    assert silent(RULE, make_recording(steps=300, loss=falling(300, seed)))


def test_a_spike_is_named_with_its_batch() -> None:
    loss = falling(300, floor=0.5)
    loss[250] = 9.0
    (found,) = findings(RULE, make_recording(steps=300, loss=loss))
    assert (found.severity, found.step) == (Severity.WARNING, 250)
    assert found.evidence["batch"] == 10
    assert found.evidence["epoch"] == 15
    assert found.evidence["spikes"] == [250]
    assert found.evidence["loss"] == 9.0 > found.evidence["threshold"]


def test_late_in_training_a_small_rise_is_no_event() -> None:
    loss = np.concatenate([[2.0, 1.0, 0.5], 1e-4 * ripple(60)])
    loss[50] = 0.003
    assert silent(RULE, make_recording(steps=63, loss=loss))
    loss[50] = 0.3
    assert len(findings(RULE, make_recording(steps=63, loss=loss))) == 1


def test_a_loss_that_is_not_positive_is_judged_on_its_own_scale() -> None:
    loss = -5 + ripple(60)
    assert silent(RULE, make_recording(steps=60, loss=loss))
    loss[40] = 3.0
    (found,) = findings(RULE, make_recording(steps=60, loss=loss))
    assert found.step == 40
    assert found.evidence["median"] == pytest.approx(-4, abs=0.2)


def test_early_only_a_hundredfold_jump_is_seen_and_the_report_says_so() -> None:
    jump = [1.0, 1.1, 0.9, 0.8, 120.0]
    assert [f.step for f in findings(RULE, make_recording(steps=5, loss=jump))] == [4]
    assert "5 steps are too few" in reasons(RULE, make_recording(steps=5, loss=jump))[0]
    negative = make_recording(steps=5, loss=[-1.0, -1.1, -0.9, -0.8, 120.0])
    assert not findings(RULE, negative)
    assert "would have been seen" not in reasons(RULE, negative)[0]


def test_non_finite_losses_are_left_out() -> None:
    loss = falling(60)
    loss[[20, 30]] = float("inf"), float("nan")
    assert silent(RULE, make_recording(steps=60, loss=loss))


def test_too_few_steps_are_said() -> None:
    assert reasons(RULE, make_recording(steps=3)) == ["3 steps with a finite loss, 4 are needed"]
    assert reasons(RULE, make_recording(steps=0))


def alternating(steps: int, swing: float = 0.1) -> Floats:
    """The log has median 0 and a robust sigma of 1.4826 swing."""
    return np.exp(swing * (-1.0) ** np.arange(steps))


@pytest.mark.parametrize(("sigmas", "expected"), [(5.9, []), (6.1, [40])])
def test_six_robust_sigmas_are_the_limit(sigmas: float, expected: list[int]) -> None:
    loss = alternating(41)
    loss[40] = np.exp(sigmas * 1.4826 * 0.1)
    assert [f.step for f in findings(RULE, make_recording(steps=41, loss=loss))] == expected


@pytest.mark.parametrize(("step", "expected"), [(19, []), (20, [20])])
def test_twenty_earlier_steps_are_needed(step: int, expected: list[int]) -> None:
    loss = alternating(22)
    loss[step] = 50.0
    assert [f.step for f in findings(RULE, make_recording(steps=22, loss=loss))] == expected


def test_noise_of_long_ago_is_forgotten() -> None:
    loss = np.concatenate([alternating(200, swing=2.0), alternating(130), [5.0]])
    assert [f.step for f in findings(RULE, make_recording(steps=331, loss=loss))] == [330]


@pytest.mark.parametrize(("value", "expected"), [(1.09, []), (1.11, [30])])
def test_a_tenth_of_the_initial_loss_is_the_least_rise(value: float, expected: list[int]) -> None:
    loss = np.ones(40)
    loss[30] = value
    assert [f.step for f in findings(RULE, make_recording(steps=40, loss=loss))] == expected


@pytest.mark.parametrize(("value", "expected"), [(99.0, []), (101.0, [3])])
def test_a_hundred_times_the_largest_is_the_early_limit(value: float, expected: list[int]) -> None:
    assert [f.step for f in findings(RULE, make_recording(steps=4, loss=[1.0, 0.9, 0.8, value]))] == expected
