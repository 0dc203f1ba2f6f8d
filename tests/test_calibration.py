"""The clip rates that recommend-clip promises hold on real training runs, and the documentation says how often."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration.__main__ import BEGIN, END, HORIZONS, PAGE, tables, windows_of
from benchmarks.calibration.judgement import Score, score
from benchmarks.calibration.methods import METHODS
from benchmarks.calibration.runs import DEVELOPMENT, REPORTED, load, train
from gradcheck_cli.clip_advice import Interval

OWN = "recommend-clip"


@pytest.fixture(scope="module")
def scores() -> dict[tuple[str, int], Score]:
    windows = {horizon: windows_of(REPORTED, horizon) for horizon in HORIZONS}
    return {(name, horizon): score(cut, METHODS[name]) for horizon, cut in windows.items() for name in METHODS}


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_promise_holds_in_95_percent_of_windows(scores: dict[tuple[str, int], Score], horizon: int) -> None:
    assert scores[OWN, horizon].windows > 500
    assert scores[OWN, horizon].coverage >= 0.95


@pytest.mark.parametrize("horizon", HORIZONS)
def test_its_interval_score_is_the_best(scores: dict[tuple[str, int], Score], horizon: int) -> None:
    assert all(scores[OWN, horizon].score < scores[name, horizon].score for name in METHODS if name != OWN)


def test_the_documentation_shows_these_tables() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == tables(), "run make calibration"


def test_development_and_reported_runs_are_apart() -> None:
    assert not set(DEVELOPMENT) & set(REPORTED)
    assert not {run.seed for run in DEVELOPMENT} & {run.seed for run in REPORTED}
    assert {run.model for run in REPORTED} - {run.model for run in DEVELOPMENT}, "a model that no method was fitted on"


def test_the_runs_that_were_kept_can_be_trained_again() -> None:
    """The first steps: later ones depend on the order in which a machine adds."""
    run = next(run for run in REPORTED if run.model == "digits_autoencoder")
    assert train(run, 12) == pytest.approx(load()[run.name][:12].astype(np.float32), rel=1e-3)


def test_an_interval_that_misses_costs_its_score() -> None:
    windows = windows_of(REPORTED[:3], 500)
    full = score(windows, lambda norms, max_norm, horizon: Interval(0.0, 1.0))
    none = score(windows, lambda norms, max_norm, horizon: Interval(1.0, 1.0))
    rates = np.array([window.rate for window in windows])
    assert (full.coverage, full.width, full.score) == pytest.approx((1.0, 100.0, 100.0))
    assert none.score == pytest.approx(100 * 40 * (1 - rates.mean()))
