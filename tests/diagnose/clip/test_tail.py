from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.clip.tail import exceeded_by, fit_pareto, fit_tail, shape_error
from gradcheck_cli.records import Floats
from tests.diagnose.clip.series import lognormal


def pareto(shape: float, uniform: Floats) -> Floats:
    """Generalised Pareto values of scale 1 from uniform ones."""
    values: Floats = -np.log1p(-uniform) if shape == 0 else ((1 - uniform) ** -shape - 1) / shape
    return values


def test_the_fit_by_hand() -> None:
    """x = 1, 2, 4: a0 = 7/3, a1 = (1 * 2 + 2 * 1 + 4 * 0) / (3 * 2) = 2/3, a0 - 2 a1 = 1."""
    shape, scale = fit_pareto(np.array([1.0, 2.0, 4.0]))
    assert shape == pytest.approx(2 - 7 / 3)
    assert scale == pytest.approx(2 * 7 / 3 * 2 / 3)


@pytest.mark.parametrize("shape", [-0.5, 0.0, 0.3])
def test_the_fit_finds_the_distribution(shape: float) -> None:
    excesses = 2 * pareto(shape, (np.arange(100_000) + 0.5) / 100_000)
    assert fit_pareto(excesses) == pytest.approx((shape, 2), abs=0.01)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_the_error_is_the_spread_over_many_samples(shape: float) -> None:
    random = np.random.default_rng(1)
    shapes = [fit_pareto(np.sort(pareto(shape, random.random(400))))[0] for _ in range(1500)]
    assert np.std(shapes) == pytest.approx(shape_error(shape, 400), rel=0.08)


def test_the_error_by_hand() -> None:
    """Hosking and Wallis: at k = 0 m var is 1 * 4 * 1 / (1 * 3)."""
    assert shape_error(0.0, 10) == pytest.approx(math.sqrt(4 / 3 / 10))
    assert shape_error(-1.0, 10) == pytest.approx(math.sqrt(2 * 9 * 4 / (3 * 5) / 10))
    assert shape_error(0.99, 10) == shape_error(0.45, 10) > shape_error(0.4, 10)


@pytest.mark.parametrize(("shape", "n"), [(0.0, 1000), (-0.3, 1000), (0.2, 2000)])
def test_the_shapes_interval_covers_what_is_true(shape: float, n: int) -> None:
    """Beyond any threshold a generalised Pareto is one of the same shape."""
    random = np.random.default_rng(2)
    tails = [fit_tail(pareto(shape, random.random(n)), float(n)) for _ in range(800)]
    covered = [tail.interval.low <= shape <= tail.interval.high for tail in tails if tail]
    assert len(covered) == 800
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_p99_is_that_of_the_distribution_and_steadier_than_the_order_statistic() -> None:
    random = np.random.default_rng(3)
    tails = [fit_tail(1 + pareto(0.2, random.random(500)), 500.0) for _ in range(400)]
    truth = 1 + (0.01**-0.2 - 1) / 0.2
    estimates = np.array([tail.p99 for tail in tails if tail])
    order = np.array([tail.p99_empirical for tail in tails if tail])
    assert np.median(estimates) == pytest.approx(truth, rel=0.03)
    assert np.std(estimates) < np.std(order)


@pytest.mark.parametrize("shape", [-0.4, 0.0, 1e-12, 0.3])
def test_what_a_share_exceeds_is_a_quantile(shape: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    for share in (0.001, 0.1, 0.9, 1.0):
        assert exceeded_by(shape, 2.0, share) == pytest.approx(float(stats.genpareto.isf(share, shape, scale=2.0)))
    assert exceeded_by(shape, 2.0, 1.5) == 0


def test_heavy_and_light_tails_are_told_apart() -> None:
    random = np.random.default_rng(4)
    heavy = fit_tail((1 - random.random(3000)) ** -0.5, 3000.0)
    light = fit_tail(random.random(3000), 3000.0)
    assert heavy is not None
    assert light is not None
    assert heavy.interval.low > 0
    assert light.shape == pytest.approx(-1, abs=0.3)
    assert light.interval.high < 0


def test_dependent_steps_make_a_wider_interval() -> None:
    norms = lognormal(500)
    alone, together = fit_tail(norms, 500.0), fit_tail(norms, 50.0)
    assert alone is not None
    assert together is not None
    assert alone.shape == together.shape
    assert together.interval.high - together.interval.low == pytest.approx(
        math.sqrt(10) * (alone.interval.high - alone.interval.low)
    )


@pytest.mark.parametrize("n", [0, 1, 2, 50, 103])
def test_too_few_norms_beyond_p90_are_not_judged(n: int) -> None:
    assert fit_tail(lognormal(n), float(n)) is None


def test_the_fewest_that_are() -> None:
    tail = fit_tail(lognormal(104), 104.0)
    assert tail is not None
    assert tail.exceedances == 10
    assert tail.threshold == np.sort(lognormal(104))[93]


@pytest.mark.parametrize("top", [1.0, 2.0, 2.0 + 1e-12])
def test_largest_norms_that_are_all_alike_have_no_tail(top: float) -> None:
    norms = np.r_[np.ones(270), np.linspace(min(top, 2.0), top, 30)]
    assert fit_tail(norms, 300.0) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e300), min_size=104, max_size=150), st.floats(1, 150))
def test_no_norms_break_it(norms: list[float], n_eff: float) -> None:
    tail = fit_tail(np.array(norms), n_eff)
    if tail is not None:
        assert tail.interval.low < tail.shape < tail.interval.high
        assert tail.shape <= 1
        assert tail.p99 >= tail.threshold
        assert tail.exceedances >= 10


@given(st.integers(0, 2**32 - 1), st.integers(-900, 900))
def test_the_unit_does_not_matter(seed: int, power: int) -> None:
    norms = lognormal(150, seed)
    here, there = fit_tail(norms, 150.0), fit_tail(np.ldexp(norms, power), 150.0)
    assert here is not None
    assert there is not None
    assert (there.shape, there.interval) == (here.shape, here.interval)
    assert (there.threshold, there.p99) == (math.ldexp(here.threshold, power), math.ldexp(here.p99, power))
