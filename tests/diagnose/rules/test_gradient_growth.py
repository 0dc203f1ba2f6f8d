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
