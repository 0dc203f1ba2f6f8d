from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.clip.dependence import (
    autocorrelations,
    count_independent,
    debias,
    exceedance_correlation,
    normal_scores,
    sum_of,
)
from tests.diagnose.clip.series import autoregress, lognormal

PERCENTILES = (1.0, 50.0, 90.0, 95.0, 99.9)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1.7e308), max_size=60), st.sampled_from(PERCENTILES))
def test_steps_are_worth_no_more_than_there_are(norms: list[float], percentile: float) -> None:
    worth = count_independent(np.array(norms), percentile)
    assert 0 < worth <= len(norms) or worth == len(norms) == 0


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("percentile", PERCENTILES)
def test_norms_that_are_all_equal_tell_of_no_dependence(n: int, percentile: float) -> None:
    assert count_independent(np.full(n, 0.3), percentile) == n


def test_independent_steps_are_worth_nearly_all() -> None:
    shares = [count_independent(lognormal(500, seed), 95) / 500 for seed in range(100)]
    assert 0.8 < np.mean(shares) <= 1


def tau_of(rho: float, percentile: float) -> float:
    """1 + 2 sum rho_k of the exceedances of an AR(1) series: how many of its steps are worth one."""
    stats = pytest.importorskip("scipy.stats")
    p, q = percentile / 100, stats.norm.ppf(percentile / 100)
    tau = 1.0
    for lag in range(1, 60):
        both = stats.multivariate_normal.cdf([q, q], cov=[[1, rho**lag], [rho**lag, 1]])
        tau += 2 * (both - p**2) / (p * (1 - p))
    return tau


@pytest.mark.parametrize("percentile", [90, 95])
@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_an_autoregressive_series_is_worth_what_theory_says(rho: float, percentile: float) -> None:
    n = 20_000
    worth = np.median([count_independent(np.exp(values), percentile) for values in autoregress(9, n, rho)])
    assert worth == pytest.approx(n / tau_of(rho, percentile), rel=0.15)


def test_a_short_dependent_series_is_not_taken_for_worth_much_more() -> None:
    """Without the correction for the subtracted mean it is 20 to 35 % more than theory says."""
    worth = np.median([count_independent(np.exp(values), 90) for values in autoregress(2000, 200, 0.9)])
    assert worth == pytest.approx(200 / tau_of(0.9, 90), rel=0.15)


def test_clusters_that_the_ranks_do_not_show_are_seen() -> None:
    """Norms are independent but for the large ones, which come ten at a time."""
    norms = lognormal(2000, 3, sigma=0.1)
    for start in range(50, 2000, 200):
        norms[start : start + 10] += 5
    assert count_independent(norms, 95) == pytest.approx(2000 / 10, rel=0.3)
    assert count_independent(np.random.default_rng(0).permutation(norms), 95) > 1200


def test_a_monotone_change_of_unit_changes_nothing() -> None:
    norms = lognormal(300, 5, rho=0.7)
    assert count_independent(norms**3 * 1e9, 90) == count_independent(norms, 90)


def test_autocorrelations_are_sums_of_products() -> None:
    values = autoregress(1, 40, 0.6)[0]
    centred = values - values.mean()
    direct = [float(centred[: 40 - lag] @ centred[lag:]) / float(centred @ centred) for lag in range(40)]
    assert autocorrelations(values) == pytest.approx(direct, abs=1e-12)
    assert autocorrelations(np.full(4, 0.1)).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("correlations", "tau"),
    [
        ([1.0], -1.0),
        ([1.0, 0.5], 2.0),
        ([1.0, 0.5, 0.2, -0.1, -0.3, 0.2, 0.9, 0.9], 1 + 2 * (0.5 + 0.2 - 0.1)),
        ([1.0, -0.4, 0.3, 0.0], 1 + 2 * (-0.4 + 0.3)),
        ([1.0, -1.0, 1.0, -1.0], -1.0),
        ([1.0, 0.0, 0.0, 0.0], 1.0),
    ],
)
def test_geyers_sum_ends_before_the_first_pair_that_is_not_positive(correlations: list[float], tau: float) -> None:
    assert sum_of(np.array(correlations)) == pytest.approx(tau)


def test_normal_scores_are_quantiles_of_mid_ranks() -> None:
    stats = pytest.importorskip("scipy.stats")
    norms = np.array([3.0, 1.0, 3.0, 7.0, 1.0, 1.0])
    expected = stats.norm.ppf((stats.rankdata(norms) - 0.5) / 6)
    assert normal_scores(norms) == pytest.approx(expected)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_short_series_no_longer_look_less_dependent_than_they_are(rho: float) -> None:
    raw = np.array([autocorrelations(values)[:6] for values in autoregress(300, 100, rho)]).mean(axis=0)
    better = np.array([debias(autocorrelations(values))[:6] for values in autoregress(300, 100, rho)]).mean(axis=0)
    truth = rho ** np.arange(6)
    assert (np.abs(better - truth)[1:] < 0.5 * np.abs(raw - truth)[1:]).all()


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_correlations_of_exceedances_are_those_of_two_normals(p: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    q, correlations = stats.norm.ppf(p), np.array([0.0, 0.1, 0.5, 0.9, 0.99])
    both = [stats.multivariate_normal.cdf([q, q], cov=[[1, r], [r, 1]]) for r in correlations]
    expected = (np.array(both) - p**2) / (p * (1 - p))
    assert exceedance_correlation(correlations, p) == pytest.approx(expected, abs=2e-4)
    assert exceedance_correlation(np.array([0.0, 1.0]), p) == pytest.approx([0, 1], abs=2e-3)


def test_at_the_median_the_correlation_is_an_arc_sine() -> None:
    correlations = np.linspace(0, 1, 11)
    expected = 2 / math.pi * np.arcsin(correlations)
    assert exceedance_correlation(correlations, 0.5) == pytest.approx(expected, abs=1e-5)
