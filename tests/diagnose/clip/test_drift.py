from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.clip.drift import block_medians, factor, find_drift, slope_interval
from gradcheck_cli.records import Floats
from tests.diagnose.clip.series import lognormal, settled


def test_a_steady_rise_is_found_with_its_factor() -> None:
    drift = find_drift(np.exp(0.002 * np.arange(500)))
    assert drift is not None
    assert drift.found
    assert drift.change == pytest.approx(math.exp(0.2))
    assert drift.interval == pytest.approx((math.exp(0.2), math.exp(0.2)))
    assert drift.p == pytest.approx(math.erfc(44 / math.sqrt(125) / math.sqrt(2)))  # S = 45 of 10 blocks


def test_a_fall_is_the_mirror_image_of_a_rise() -> None:
    norms = lognormal(400, 2) * np.exp(0.001 * np.arange(400))
    rise, fall = find_drift(norms), find_drift(1 / norms)
    assert rise is not None
    assert fall is not None
    assert (fall.found, fall.p) == (rise.found, rise.p)
    assert fall.change == pytest.approx(1 / rise.change)
    assert fall.interval == pytest.approx((1 / rise.interval.high, 1 / rise.interval.low))


def test_one_spike_is_no_drift() -> None:
    norms = settled(300)
    norms[-3:] *= 1000
    drift = find_drift(norms)
    assert drift is not None
    assert not drift.found
    assert drift.change == pytest.approx(1, abs=0.02)


def test_settled_norms_seldom_look_like_drift() -> None:
    found = [drift.found for seed in range(600) if (drift := find_drift(lognormal(200, seed)))]
    assert len(found) == 600
    assert np.mean(found) < 0.06


@pytest.mark.parametrize("n", range(20))
def test_fewer_than_two_a_block_are_not_judged(n: int) -> None:
    assert find_drift(lognormal(n)) is None


@pytest.mark.parametrize("norm", [0.0, 0.3, 1e-300, 1e300])
def test_a_series_that_never_varies_does_not_drift(norm: float) -> None:
    drift = find_drift(np.full(100, norm))
    assert drift is not None
    assert (drift.found, drift.p) == (False, 1.0)
    assert (drift.change, *drift.interval) == pytest.approx((1, 1, 1))


def test_a_change_beyond_all_numbers_stays_finite() -> None:
    drift = find_drift(np.geomspace(1e-300, 1e300, 30))
    assert drift is not None
    assert drift.found
    assert math.isfinite(drift.change)
    assert factor(1e9) > 1e300
    assert factor(-1e9) > 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1.7e308), min_size=20, max_size=60), st.integers(-50, 50))
def test_the_unit_does_not_matter(norms: list[float], power: int) -> None:
    here, there = find_drift(np.array(norms)), find_drift(np.clip(np.array(norms), 1e-200, 1e200) * 2.0**power)
    assert here is not None
    assert there is not None
    assert here.interval.low <= here.change <= here.interval.high
    assert 0 <= there.p <= 1


def test_blocks_are_of_like_length() -> None:
    assert block_medians(np.arange(30.0)).tolist() == list(np.arange(10) * 3.0 + 1)
    assert block_medians(np.arange(3.0)).tolist() == [0, 1, 2]
    assert len(block_medians(np.arange(57.0))) == 10


def interval_by_hand(values: Floats) -> tuple[float, float]:
    """Gilbert (1987), section 16.5.1: the M1-th and (M2 + 1)-th smallest slope, linear between two."""
    n = len(values)
    slopes = sorted((values[j] - values[i]) / (j - i) for i in range(n) for j in range(i + 1, n))
    reach = 1.959964 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)

    def at(rank: float) -> float:
        whole = min(max(math.floor(rank), 1), len(slopes) - 1)
        share = min(max(rank - whole, 0), 1)
        return float((1 - share) * slopes[whole - 1] + share * slopes[whole])

    return at((len(slopes) - reach) / 2), at((len(slopes) + reach) / 2 + 1)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_slopes_interval_is_that_of_gilbert(n: int) -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).standard_normal(n)
        assert slope_interval(values)[1:] == pytest.approx(interval_by_hand(values))


def test_the_slope_is_that_of_theil_and_sen() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).standard_normal(10)
    ours, theirs = slope_interval(values), stats.theilslopes(values, alpha=0.95)
    assert ours[0] == pytest.approx(theirs.slope)
    assert ours[1:] == pytest.approx((theirs.low_slope, theirs.high_slope), abs=0.05)


def test_two_values_have_one_slope() -> None:
    assert slope_interval(np.array([1.0, 4.0])) == (3, 3, 3)


def test_the_slopes_interval_covers_95_of_100() -> None:
    random = np.random.default_rng(7)
    intervals = [slope_interval(0.5 * np.arange(10) + random.standard_normal(10)) for _ in range(4000)]
    assert np.mean([low <= 0.5 <= high for _, low, high in intervals]) == pytest.approx(0.955, abs=0.015)
    assert np.mean([low > 0.5 for _, low, high in intervals]) == pytest.approx(0.0225, abs=0.01)
    assert np.mean([high < 0.5 for _, low, high in intervals]) == pytest.approx(0.0225, abs=0.01)
