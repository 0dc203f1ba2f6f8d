from __future__ import annotations

import math
from itertools import combinations
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.statistics import condense, find_spikes, mann_kendall, robust_sigma, theil_sen

numbers = st.floats(-1e6, 1e6)
gappy = st.lists(st.one_of(numbers, st.just(math.nan)), max_size=25)
tied = st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(math.nan)), max_size=25)


@settings(deadline=None)
@given(gappy)
def test_theil_sen_is_the_median_of_all_pairwise_slopes(y: list[float]) -> None:
    points = [(i, value) for i, value in enumerate(y) if not math.isnan(value)]
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(points, 2)]
    if not slopes:
        assert math.isnan(theil_sen(y))
    else:
        assert theil_sen(y) == pytest.approx(median(slopes), abs=1e-6)


@settings(deadline=None)
@given(st.lists(numbers, min_size=2, max_size=25), numbers)
def test_theil_sen_follows_a_line_added_to_the_series(y: list[float], slope: float) -> None:
    tilted = np.array(y) + slope * np.arange(len(y))
    assert theil_sen(tilted) == pytest.approx(theil_sen(y) + slope, rel=1e-6, abs=1e-6)


def test_theil_sen_withstands_outliers_that_least_squares_does_not() -> None:
    y = 0.5 * np.arange(30)
    y[::7] = 1e6
    assert theil_sen(y) == pytest.approx(0.5)


@settings(deadline=None)
@given(tied)
def test_mann_kendall_counts_pairs(y: list[float]) -> None:
    values = [value for value in y if not math.isnan(value)]
    trend = mann_kendall(y)
    assert trend.s == sum((b > a) - (b < a) for a, b in combinations(values, 2))
    assert 0 <= trend.p <= 1


@settings(deadline=None)
@given(tied)
def test_mann_kendall_of_the_reversed_series_has_the_opposite_sign(y: list[float]) -> None:
    forward, backward = mann_kendall(y), mann_kendall(y[::-1])
    assert (forward.s, forward.p) == (-backward.s, pytest.approx(backward.p))


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=3, max_size=6))
def test_mann_kendall_variance_is_that_of_all_orders(y: list[int]) -> None:
    """The p of the observed S must come from the true variance of S over all orders, ties included."""
    from itertools import permutations

    scores = np.array([sum((b > a) - (b < a) for a, b in combinations(order, 2)) for order in permutations(y)])
    trend = mann_kendall(y)
    if scores.std() == 0:
        assert trend.p == 1
    else:
        z = max(0, abs(trend.s) - 1) / scores.std()
        assert trend.p == pytest.approx(math.erfc(z / math.sqrt(2)))


def test_mann_kendall_of_a_textbook_series() -> None:
    # n = 10 rising without a tie: S = 45, Var = 10 * 9 * 25 / 18 = 125, z = 44 / 11.18 = 3.935, p = 8.3e-5.
    trend = mann_kendall(range(10))
    assert trend.s == 45
    assert trend.p == pytest.approx(8.3e-5, rel=0.01)


@settings(deadline=None)
@given(gappy)
def test_robust_sigma_is_the_scaled_median_absolute_deviation(x: list[float]) -> None:
    values = [value for value in x if not math.isnan(value)]
    if not values:
        assert math.isnan(robust_sigma(x))
    else:
        assert robust_sigma(x) == pytest.approx(1.4826 * median(abs(v - median(values)) for v in values))


def test_robust_sigma_estimates_the_deviation_of_a_normal_sample() -> None:
    sample = np.random.default_rng(0).normal(5, 2, 100_000)
    assert robust_sigma(sample) == pytest.approx(2, rel=0.02)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=60), st.integers(1, 80))
def test_condense_shortens_only_what_is_too_long_and_stays_within_the_range(y: list[float], longest: int) -> None:
    short = condense(y, longest)
    assert len(short) == min(len(y), longest)
    assert min(y) <= short.min()
    assert short.max() <= max(y)
    if len(y) <= longest:
        assert short.tolist() == y


def test_condense_keeps_a_slope_over_the_whole_length() -> None:
    y = np.linspace(0, 3, 4000)
    short = condense(y, 400)
    assert theil_sen(short) * (len(short) - 1) == pytest.approx(3, rel=0.01)


def slow_spikes(values: list[float], window: int, minimum: int, sigmas: float, rise: float, jump: float) -> list[int]:
    """The definition, step by step."""
    kept: list[float] = []
    spikes = []
    for index, value in enumerate(values):
        recent = kept[-window:]
        is_spike = False
        if recent:
            middle = float(np.median(recent))
            sigma = 1.4826 * float(np.median(np.abs(np.array(recent) - middle)))
            far = len(recent) >= minimum and value > middle + sigmas * sigma
            sudden = index >= 3 and value > max(kept) + jump
            is_spike = (far or sudden) and value > middle + rise
        if is_spike:
            spikes.append(index)
        else:
            kept.append(value)
    return spikes


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1, 1), st.sampled_from([-50.0, 3.0, 4.0, 5.0, 50.0])), max_size=60),
    st.integers(3, 12),
    st.integers(1, 10),
    st.floats(0, 8),
    st.floats(0, 3),
    st.floats(1, 10),
)
def test_spikes_are_those_of_the_definition(
    values: list[float], window: int, minimum: int, sigmas: float, rise: float, jump: float
) -> None:
    minimum = min(minimum, window)
    found = find_spikes(values, window, minimum, sigmas, least=lambda median: median + rise, jump=jump)
    assert [spike.position for spike in found] == slow_spikes(values, window, minimum, sigmas, rise, jump)
    assert all(values[spike.position] > spike.threshold >= spike.median + rise for spike in found)


def test_one_spike_does_not_hide_the_next() -> None:
    values = [0.1 * math.sin(i) for i in range(60)]
    for index in range(30, 50):
        values[index] = 5.0
    assert [spike.position for spike in find_spikes(values)] == list(range(30, 50))


def test_a_constant_series_and_rounding_have_no_spike_beyond_the_least_rise() -> None:
    values = [1.0] * 40 + [1.0 + 1e-12] + [1.0] * 5
    assert find_spikes(values, least=lambda median: median + 0.1) == []


def test_no_value_among_the_first_is_a_spike() -> None:
    assert find_spikes([0.0, 1e3, 1e6], jump=1.0) == []
    assert [spike.position for spike in find_spikes([0.0, 1.0, 2.0, 1e6], jump=1.0)] == [3]
