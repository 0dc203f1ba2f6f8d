from __future__ import annotations

import numpy as np
import pytest

from gradcheck_cli.diagnose.rules import gradient_growth
from gradcheck_cli.diagnose.statistics import mann_kendall, theil_sen
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording, ripple

RULE = gradient_growth.check


def test_a_steady_norm_gets_nothing() -> None:
    assert silent(RULE, make_recording())


def test_norms_that_fall_and_then_rise_by_a_third_are_healthy() -> None:
    norms = np.concatenate([np.geomspace(3, 1, 10), np.geomspace(1, 1.32, 90)]) * ripple(100)
    assert silent(RULE, make_recording(steps=100, grad_norm=norms))


def test_a_rise_within_the_first_steps_that_stays_is_healthy() -> None:
    norms = np.concatenate([np.geomspace(1e-6, 1, 6), np.ones(34)]) * ripple(40)
    assert silent(RULE, make_recording(steps=40, grad_norm=norms))


def test_more_than_a_decade_is_a_warning() -> None:
    (found,) = findings(RULE, make_recording(steps=50, grad_norm=np.geomspace(1, 20, 50) * ripple(50)))
    assert found.severity is Severity.WARNING
    assert found.evidence["decades"] == pytest.approx(np.log10(20), abs=0.1)
    assert found.evidence["trend_p"] < 0.01


def test_a_decade_is_the_limit() -> None:
    assert silent(RULE, make_recording(steps=50, grad_norm=np.geomspace(1, 9.9, 50)))
    assert findings(RULE, make_recording(steps=50, grad_norm=np.geomspace(1, 10.1, 50)))


@pytest.mark.parametrize("seed", range(10))
def test_noise_of_a_decade_is_no_growth(seed: int) -> None:
    norms = np.random.default_rng(seed).lognormal(0, 1.5, 60)
    assert silent(RULE, make_recording(steps=60, grad_norm=norms))


def test_long_runs_are_judged_as_short_ones() -> None:
    assert findings(RULE, make_recording(steps=3000, grad_norm=np.geomspace(1, 30, 3000) * ripple(3000)))
    assert silent(RULE, make_recording(steps=3000, grad_norm=np.geomspace(1, 5, 3000) * ripple(3000)))


def test_skipped_and_non_finite_steps_are_left_out() -> None:
    norms = np.geomspace(1, 100, 22)
    norms[3] = float("nan")
    assert findings(RULE, make_recording(steps=22, grad_norm=norms, skipped=[5], uses_scaler=True))
    norms[4] = float("inf")
    recording = make_recording(steps=22, grad_norm=norms, skipped=[5], uses_scaler=True)
    assert reasons(RULE, recording) == ["19 steps with a finite gradient norm, 20 are needed"]


def test_no_steps_at_all() -> None:
    assert reasons(RULE, make_recording(steps=0))


def test_a_trend_must_be_significant() -> None:
    logs = np.linspace(0, 1.3, 20) + np.random.default_rng(9).normal(0, 1.3, 20)
    assert theil_sen(logs) * 19 > 2
    assert 0.01 < mann_kendall(logs).p < 0.05
    assert silent(RULE, make_recording(steps=20, grad_norm=10**logs))


def plateau(steps: int, learned: float, growth: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Losses that stay for the first half, and gradient norms that grow all the way."""
    late = np.concatenate([np.zeros(steps - steps // 2), np.linspace(0, learned, steps // 2)])
    noise = np.random.default_rng(3).normal(0, 0.01, steps)
    return 2.3 - late + noise, np.geomspace(1, growth, steps) * ripple(steps)


@pytest.mark.parametrize("steps", [60, 90, 3000])
def test_a_network_that_leaves_its_plateau_is_healthy(steps: int) -> None:
    losses, norms = plateau(steps, 1.0)
    assert silent(RULE, make_recording(steps=steps, grad_norm=norms, loss=losses))


@pytest.mark.parametrize("learned", [0.0, -1.0])
def test_growth_while_the_loss_stays_or_rises_is_not(learned: float) -> None:
    losses, norms = plateau(90, learned)
    assert findings(RULE, make_recording(steps=90, grad_norm=norms, loss=losses))


def test_growth_while_the_loss_falls_as_it_did_before_is_not() -> None:
    norms = np.geomspace(1, 20, 90) * ripple(90)
    assert findings(RULE, make_recording(steps=90, grad_norm=norms, loss=np.linspace(2.3, 1, 90)))
    assert findings(RULE, make_recording(steps=90, grad_norm=norms, loss=2.3 * np.exp(-np.arange(90) / 30)))


def test_losses_that_are_not_known_excuse_nothing() -> None:
    norms = np.geomspace(1, 20, 90) * ripple(90)
    assert findings(RULE, make_recording(steps=90, grad_norm=norms, loss=np.full(90, np.nan)))
