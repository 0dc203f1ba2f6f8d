from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.clip.prediction import (
    SLOPES,
    beta_binomial,
    concentration,
    draw_slopes,
    mixture,
    predict_rate,
    student_quantiles,
)
from gradcheck_cli.diagnose.clip.quantiles import take_quantile
from tests.diagnose.clip.series import autoregress, lognormal, settled

SERIES = 300


@pytest.mark.parametrize(("n", "exceeding", "horizon"), [(200, 10, 500), (50, 0, 20), (50, 49, 20), (300, 15, 1)])
def test_for_exchangeable_norms_it_is_the_beta_binomial(n: int, exceeding: int, horizon: int) -> None:
    """r - 1 of n exceed: of the next m it is beta-binomial(m, r, n - r + 1) many."""
    stats = pytest.importorskip("scipy.stats")
    r = exceeding + 1
    exact = stats.betabinom(horizon, r, n - r + 1).cdf(np.arange(horizon + 1))
    assert mixture(np.full(SLOPES, float(exceeding)), n, float(n), horizon) == pytest.approx(exact, abs=1e-9)


def test_by_hand() -> None:
    """One norm, not exceeded: any number of the next is as likely. Beta-binomial(m, 1, 1)."""
    assert mixture(np.zeros(SLOPES), 1, 1.0, 4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    prediction = predict_rate(np.array([2.0]), 2.0, 100)
    assert prediction.interval == pytest.approx((0.025, 0.975), abs=0.011)


def test_slopes_are_mixed_in_equal_parts() -> None:
    half = np.where(np.arange(SLOPES) < 10, 3.0, 40.0)
    parts = [mixture(np.full(SLOPES, number), 100, 100.0, 50) for number in (3.0, 40.0)]
    expected = (10 * parts[0] + (SLOPES - 10) * parts[1]) / SLOPES
    assert mixture(half, 100, 100.0, 50) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b", "m"), [(1.0, 30.0, 40), (0.01, 0.2, 7), (25.5, 3.25, 1), (1e-3, 1e-6, 20)])
def test_the_probabilities_are_those_of_the_beta_binomial(a: float, b: float, m: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert beta_binomial(a, b, m) == pytest.approx(stats.betabinom(m, a, b).pmf(np.arange(m + 1)), abs=1e-9)


@pytest.mark.parametrize("n_eff", [300.0, 60.0, 10.0])
@pytest.mark.parametrize("horizon", [2, 30, 500])
def test_the_spread_is_that_of_so_many_independent_steps(n_eff: float, horizon: int) -> None:
    """The variance of the share is as n_eff of 300 and m_eff of the horizon make it, at most p (1 - p)."""
    n, p = 300, 0.1
    weight = concentration(n, n_eff, horizon)
    shares = np.arange(horizon + 1) / horizon
    mass = beta_binomial(p * weight, (1 - p) * weight, horizon)
    m_eff = max(1.0, horizon * n_eff / n)
    expected = p * (1 - p) * (n_eff + 1 + m_eff) / (m_eff * (n_eff + 2))
    assert mass @ shares == pytest.approx(p)
    assert mass @ (shares - p) ** 2 == pytest.approx(min(expected, p * (1 - p)), rel=0.01)


def test_student_quantiles_with_four_degrees_of_freedom() -> None:
    stats = pytest.importorskip("scipy.stats")
    shares = np.array([1e-6, 0.02, 0.3, 0.5, 0.7, 0.98, 1 - 1e-6])
    assert student_quantiles(shares) == pytest.approx(stats.t.ppf(shares, 4), abs=1e-6)


def test_slopes_lie_evenly_around_the_trend() -> None:
    slopes = draw_slopes(0.01 * np.arange(300))
    assert np.median(slopes) == pytest.approx(0.01, rel=0.01)
    assert slopes + slopes[::-1] == pytest.approx(2 * np.median(slopes))
    assert (np.diff(slopes) > 0).all()
    assert draw_slopes(np.full(50, 3.0)) == pytest.approx(np.zeros(SLOPES), abs=1e-15)
    assert draw_slopes(np.array([3.0])).tolist() == [0] * SLOPES


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("n", "horizon"), [(300, 1), (300, 5), (300, 100), (300, 500), (80, 500)])
def test_of_settled_norms_95_of_100_futures_lie_inside(rho: float, n: int, horizon: int) -> None:
    held = []
    for norms in np.exp(0.5 * autoregress(SERIES, n + horizon, rho, seed=21)):
        value = take_quantile(norms[:n], 95)
        low, high = predict_rate(norms[:n], value, horizon).interval
        held.append(low - 1e-12 <= (norms[n:] > value).mean() <= high + 1e-12)
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize("horizon", [2, 4, 10])
def test_a_horizon_shorter_than_the_clusters_may_be_clipped_as_a_whole(horizon: int) -> None:
    held = []
    for norms in np.exp(0.5 * autoregress(SERIES, 500 + horizon, 0.97, seed=22)):
        low, high = predict_rate(norms[:500], take_quantile(norms[:500], 90), horizon).interval
        held.append(low <= (norms[500:] > take_quantile(norms[:500], 90)).mean() <= high)
    assert np.mean(held) >= 0.95


def width(norms: object, horizon: int = 500, max_norm: float | None = None) -> float:
    values = np.asarray(norms, dtype=np.float64)
    low, high = predict_rate(values, take_quantile(values, 90) if max_norm is None else max_norm, horizon).interval
    return high - low


def test_it_widens_with_the_horizon() -> None:
    norms = lognormal(300, 4)
    widths = [width(norms, horizon) for horizon in (200, 500, 2000, 8000)]
    assert widths == sorted(widths)
    assert widths[-1] > 2 * widths[0]


def test_it_widens_with_drift() -> None:
    """Norms that fall and rise again, by more and more."""
    wave = np.cos(np.arange(300) * 2 * np.pi / 300)
    mean = [
        np.mean([width(lognormal(300, seed) * np.exp(wave * size)) for seed in range(20)]) for size in (0, 0.1, 0.3)
    ]
    assert mean[0] < 0.8 * mean[1] < 0.8 * mean[2]


def test_a_trend_moves_it() -> None:
    norms = settled(400, 0.3)
    up, down = norms * np.exp(0.002 * np.arange(400)), norms * np.exp(-0.002 * np.arange(400))
    rising, falling = (predict_rate(series, take_quantile(series, 90), 500) for series in (up, down))
    assert rising.rate > 0.5
    assert falling.rate < 0.05
    assert rising.interval.low > falling.interval.high


some_norms = st.lists(st.floats(0, 1.7e308), min_size=1, max_size=60)


@settings(deadline=None)
@given(some_norms, st.floats(0, 1.7e308), st.sampled_from([1, 2, 7, 100]))
def test_bounds_are_shares_in_order(norms: list[float], max_norm: float, horizon: int) -> None:
    rate, (low, high) = predict_rate(np.array(norms), max_norm, horizon)
    assert 0 <= low <= rate <= high <= 1
    assert low * horizon == pytest.approx(round(low * horizon))


def test_a_larger_max_norm_never_clips_more() -> None:
    norms = lognormal(300, 6)
    rates = [predict_rate(norms, max_norm, 300).rate for max_norm in np.linspace(0.2, 3, 60)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.95
    assert rates[-1] < 0.05


@pytest.mark.parametrize("norm", [0.3, 1.0, 7.7, 1e-300, 1e300, 5e-324, 1 / 3])
def test_norms_that_never_vary_stay_at_the_max_norm_and_are_not_clipped(norm: float) -> None:
    prediction = predict_rate(np.full(300, norm), norm, 500)
    assert prediction.rate < 0.01
    assert prediction.interval.high < 0.02


@pytest.mark.parametrize("norm", [0.3, 1e-300, 1e300])
def test_norms_that_never_vary_and_exceed_are_clipped_always(norm: float) -> None:
    assert predict_rate(np.full(300, norm), norm / 2, 500).interval.low > 0.98


def test_a_zero_gradient_is_never_clipped() -> None:
    """Even at a max_norm below all norms that are not zero."""
    norms = np.where(np.random.default_rng(0).random(400) < 0.5, 0.0, settled(400))
    for max_norm in (1e-9, 0.0):
        assert predict_rate(norms, max_norm, 500).rate == pytest.approx((norms > 0).mean(), abs=0.03)
    assert predict_rate(np.zeros(50), 0.0, 500).rate < 0.05


def test_the_unit_does_not_matter() -> None:
    for seed in range(10):
        norms = lognormal(120, seed)
        here, there = predict_rate(norms, 1.3, 500), predict_rate(norms * 3e-7, 1.3 * 3e-7, 500)
        assert (there.rate, *there.interval) == pytest.approx((here.rate, *here.interval))


def test_of_no_max_norm_at_all_every_norm_is_beyond() -> None:
    assert predict_rate(lognormal(100), 0.0, 50).interval.low > 0.9
    assert math.isclose(predict_rate(lognormal(100), 1e300, 50).interval.low, 0)
