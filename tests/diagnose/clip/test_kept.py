from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.clip.kept import keep
from gradcheck_cli.norm_list import assemble
from gradcheck_cli.records import RunInfo
from tests.diagnose.clip.series import record, steady


def test_settled_norms_are_all_kept() -> None:
    kept = keep(record(steady(100)).series)
    assert kept.norms.tolist() == steady(100).tolist()
    assert kept.steps.tolist() == list(range(100))
    assert (kept.excluded, kept.reason, kept.rate_rises) == (0, "", False)
    assert kept.dropped == {"skipped": 0, "nonfinite": 0}


def test_each_step_is_dropped_for_one_reason() -> None:
    norms = np.full(100, 0.7)
    norms[[3, 4, 50]] = math.nan, math.inf, math.inf
    kept = keep(record(norms, skipped=[0, 4, 99]).series)
    assert kept.dropped == {"skipped": 3, "nonfinite": 2}
    assert set(range(100)) - set(kept.steps.tolist()) == {0, 3, 4, 50, 99}
    assert kept.norms.tolist() == norms[kept.steps].tolist()


def test_the_warmup_of_the_norms_is_cut_off() -> None:
    norms = steady(200)
    norms[:40] *= 5
    kept = keep(record(norms).series)
    assert (kept.excluded, kept.steps[0]) == (40, 40)
    assert kept.reason == "the norms settle in the first 40 (MSER-5)"


def test_the_warmup_of_the_learning_rate_is_cut_off() -> None:
    kept = keep(record(steady(200), lr=np.minimum(np.arange(200), 60) * 1e-4).series)
    assert (kept.excluded, kept.steps[0], kept.rate_rises) == (60, 60, False)
    assert kept.reason == "the learning rate rises over 60 steps"


def test_both_are_cut_one_after_the_other_and_dropped_steps_are_not_counted_twice() -> None:
    norms = steady(200)
    norms[:100] *= 5
    norms[[10, 70]] = math.nan
    norms[190] = math.inf
    kept = keep(record(norms, lr=np.minimum(np.arange(200), 60) * 1e-4, skipped=[5, 80]).series)
    assert kept.steps[0] >= 100
    assert kept.excluded + len(kept.steps) + sum(kept.dropped.values()) == 200
    assert kept.reason.startswith("the learning rate rises over 60 steps, and the norms settle in the first ")
    assert kept.reason.endswith(" after that (MSER-5)")


@pytest.mark.parametrize(("warmup", "rises"), [(79, False), (80, False), (81, True), (500, True)])
def test_a_learning_rate_that_rises_nearly_to_the_end_is_not_cut_off(warmup: int, rises: bool) -> None:
    """Twenty steps after it are enough."""
    kept = keep(record(steady(100), lr=np.minimum(np.arange(100), warmup) * 1e-4).series)
    assert kept.rate_rises is rises
    assert kept.excluded == (0 if rises else warmup)


def test_the_fastest_rate_of_all_groups_counts() -> None:
    series = record(steady(100)).series
    rates = np.stack([np.zeros(100), np.minimum(np.arange(100), 30) * 1e-4], axis=1)
    assert keep(type(series)(**{**vars(series), "lr": rates})).excluded == 30


def test_a_list_of_norms_has_no_learning_rate() -> None:
    norms = steady(50)
    kept = keep(assemble(RunInfo("norms.csv", "", "", None), norms, np.full(50, np.nan), np.zeros(50, bool)).series)
    assert kept.norms.tolist() == norms.tolist()


@pytest.mark.parametrize("norms", [[], [math.nan] * 30, [math.inf]])
def test_there_may_be_nothing_to_keep(norms: list[float]) -> None:
    kept = keep(record(norms).series)
    assert (len(kept.norms), len(kept.steps), kept.excluded) == (0, 0, 0)
    assert kept.dropped == {"skipped": 0, "nonfinite": len(norms)}


strange = st.one_of(st.floats(0, 1.7e308), st.sampled_from([0.0, math.nan, math.inf]))


@settings(deadline=None)
@given(st.lists(strange, max_size=80), st.sets(st.integers(0, 79)), st.lists(strange, min_size=80, max_size=80))
def test_every_step_is_kept_or_counted(norms: list[float], skipped: set[int], rates: list[float]) -> None:
    recording = record(norms, skipped=skipped, lr=rates[: len(norms)])
    kept = keep(recording.series)
    assert len(kept.norms) + kept.excluded + sum(kept.dropped.values()) == len(norms)
    assert np.isfinite(kept.norms).all()
    assert (np.diff(kept.steps) > 0).all()
    assert not set(kept.steps.tolist()) & skipped
