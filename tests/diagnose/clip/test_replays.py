from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.clip_advice import Candidate
from gradcheck_cli.diagnose.clip.adaptive import AutoClip, Threshold, ZClip
from gradcheck_cli.diagnose.clip.replays import replay_all, replay_per_tensor
from gradcheck_cli.records import Floats

KINDS = ("random", "spiky", "constant", "falling", "regimes")
CAPS = (None, 1.0)

some_norms = st.lists(st.floats(0, 1e3, allow_subnormal=False), min_size=1, max_size=80)
some_series = st.builds(
    lambda kind, seed, n: series(kind, seed, n), st.sampled_from(KINDS), st.integers(0, 2**32 - 1), st.integers(1, 400)
)


def series(kind: str, seed: int, n: int) -> list[float]:
    """Norms (n,) around 1, of a kind."""
    random = np.random.default_rng(seed)
    norms = np.exp(0.3 * random.standard_normal(n))
    if kind == "spiky":
        norms[random.random(n) < 0.05] *= 30
    elif kind == "constant":
        norms[:] = norms[0]
    elif kind == "falling":
        norms *= np.geomspace(3, 0.1, n)
    elif kind == "regimes":
        norms[n // 2 :] *= 5
    return [float(norm) for norm in norms]


def replay(norms: Sequence[float], name: str, judged: float | None = None) -> Candidate:
    found = {candidate.name: candidate for candidate in replay_all(np.array(norms), {}, judged)}
    return found[name]


def clip_to(threshold: Threshold, norms: Sequence[float]) -> list[float]:
    """The norms after clipping them one by one."""
    return [min(norm, threshold.next(norm)) for norm in norms]


def clip_by_zclip_paper(norms: Sequence[float], cap: float | None) -> list[float]:
    """ZClip as arXiv 2504.02507 has it, with the cap of the authors' code: z 2.5, alpha 0.97, 25 steps of warm-up."""
    first: list[float] = []
    mean, variance = 0.0, 0.0
    clipped = []
    for norm in norms:
        adjusted = norm
        if len(first) < 25:
            first.append(norm)
            if len(first) == 25:
                mean, variance = statistics.fmean(first), statistics.pvariance(first)
        else:
            sigma = math.sqrt(variance)
            z = (norm - mean) / sigma if sigma > 0 else math.copysign(math.inf, norm - mean)
            if z > 2.5 and norm > mean:
                adjusted = mean + 2.5 * sigma / (z / 2.5)
            mean = 0.97 * mean + 0.03 * adjusted
            variance = 0.97 * variance + 0.03 * (adjusted - mean) ** 2
        clipped.append(adjusted if cap is None else min(adjusted, cap))
    return clipped


def clip_by_autoclip_paper(norms: Sequence[float], percentile: float) -> list[float]:
    """AutoClip (MLSP 2020): the history of all norms, the present one included, and its percentile."""
    history: list[float] = []
    clipped = []
    for norm in norms:
        history.append(norm)
        clipped.append(min(norm, float(np.percentile(history, percentile))))
    return clipped


def skip_by_olmo(norms: Sequence[float]) -> list[bool]:
    """The norm's half of OLMo-core's SkipStepOptimizer, with its defaults."""
    history: list[float] = []
    skipped = []
    for norm in norms:
        history = [*history, norm][-129:]
        past = history[:-1]
        enough = len(history) >= 64
        skipped.append(enough and norm - statistics.fmean(past) > 6 * statistics.stdev(past))
    return skipped


def clip_by_adagc_paper(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """AdaGC, algorithm 1 of arXiv 2502.11034v1, with lambda_abs 1.0, lambda_rel 1.05, beta 0.98, T_start 100."""
    kept = [math.inf] * len(rows[0])
    clipped_rows = []
    for step, row in enumerate(rows):
        together = math.sqrt(sum(norm * norm for norm in row))
        clipped = []
        for tensor, norm in enumerate(row):
            if step < 100:
                clipped.append(min(1.0, 1.0 / together) * norm)
                kept[tensor] = min(kept[tensor], clipped[-1])
            else:
                clipped.append(min(1.0, 1.05 * kept[tensor] / norm) * norm)
                kept[tensor] = 0.98 * kept[tensor] + 0.02 * clipped[-1]
        clipped_rows.append(clipped)
    return clipped_rows


@settings(deadline=None)
@given(st.one_of(some_norms, some_series), st.sampled_from(CAPS))
def test_zclip_clips_as_its_paper_says(norms: list[float], cap: float | None) -> None:
    expected = clip_by_zclip_paper(norms, cap)
    assert clip_to(ZClip(max_norm=cap), norms) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(st.one_of(some_norms, some_series), st.sampled_from([0.0, 10.0, 37.5, 90.0, 100.0]))
def test_autoclip_clips_as_its_paper_says(norms: list[float], percentile: float) -> None:
    expected = clip_by_autoclip_paper(norms, percentile)
    assert clip_to(AutoClip(percentile), norms) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", ["random", "spiky", "regimes"])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("ZClip", lambda norms: clip_by_zclip_paper(norms, None)),
        ("ZClip, cap 1.0", lambda norms: clip_by_zclip_paper(norms, 1.0)),
        ("AutoClip p10", lambda norms: clip_by_autoclip_paper(norms, 10)),
        ("AutoClip p90", lambda norms: clip_by_autoclip_paper(norms, 90)),
    ],
)
def test_a_candidate_counts_what_the_paper_clips(
    name: str, reference: Callable[[list[float]], list[float]], kind: str
) -> None:
    norms = np.array(series(kind, 5, 400))
    factors = np.array(reference(norms.tolist())) / norms
    acted = factors < 1 - 1e-9
    candidate = replay(norms, name)
    assert candidate.clip_rate == pytest.approx(acted.mean())
    assert candidate.mean_shrink == pytest.approx(factors[acted].mean())
    assert 0 < candidate.clip_rate < 1


@pytest.mark.parametrize("kind", ["random", "spiky", "falling", "regimes"])
@pytest.mark.parametrize("n", [63, 64, 400])
def test_six_sigma_skips_what_olmo_core_skips(kind: str, n: int) -> None:
    norms = np.array(series(kind, 5, n))
    norms[-1] *= 100
    skipped = skip_by_olmo(norms.tolist())
    candidate = replay(norms, "mean + 6 sigma")
    assert candidate.clip_rate == pytest.approx(np.mean(skipped))
    assert candidate.mean_shrink == (0.0 if any(skipped) else 1.0)
    assert any(skipped) == (n >= 64)


def test_fixed_max_norms() -> None:
    norms = [0.25, 1.0, 2.0, 4.0, 0.0]
    assert replay(norms, "0.5") == Candidate("0.5", 0.5, 0.6, pytest.approx((1 / 2 + 1 / 4 + 1 / 8) / 3))
    assert replay(norms, "1.0") == Candidate("1.0", 1.0, 0.4, (1 / 2 + 1 / 4) / 2)
    assert replay(norms, "5.0") == Candidate("5.0", 5.0, 0.0, 1.0)


def test_quantiles_are_candidates_under_their_percentile() -> None:
    norms = np.array([1.0, 2.0, 3.0, 4.0])
    first, second, *_ = replay_all(norms, {99.0: 3.5, 90.0: 2.5})
    assert first == Candidate("p90", 2.5, 0.5, pytest.approx((2.5 / 3 + 2.5 / 4) / 2))
    assert second == Candidate("p99", 3.5, 0.25, 3.5 / 4)
    assert {"p97.5"} <= {candidate.name for candidate in replay_all(norms, {97.5: 3.0})}


def test_the_users_own_value_is_a_candidate_once() -> None:
    norms = np.array([1.0, 2.0, 3.0, 4.0])
    assert replay(norms, "yours", judged=2.0) == Candidate("yours", 2.0, 0.5, pytest.approx((2 / 3 + 2 / 4) / 2))
    for known in (1.0, 3.5):
        assert "yours" not in {candidate.name for candidate in replay_all(norms, {95.0: 3.5}, known)}


def test_zclip_by_hand() -> None:
    spread = 5 / math.sqrt(24)  # makes the standard deviation of the first 25 norms 1
    norms = [3 - spread, 3 + spread] * 12 + [3.0, 8.0]
    candidate = replay(norms, "ZClip")
    assert candidate.clip_rate == 1 / 26
    clipped_to = 3 + 2.5**2 / 5  # z = (8 - 3) / 1 = 5
    assert candidate.mean_shrink == pytest.approx(clipped_to / 8)
    mean = 0.97 * 3 + 0.03 * clipped_to
    std = math.sqrt(0.97 * 1 + 0.03 * (clipped_to - mean) ** 2)
    assert candidate.last_max_norm == pytest.approx(mean + 2.5 * std)
    assert candidate.max_norm is None


def test_the_cap_of_zclip_holds_in_the_warmup_and_leaves_its_statistics_alone() -> None:
    norms = [2.0, 4.0] * 40
    capped = replay(norms, "ZClip, cap 1.0")
    assert (capped.clip_rate, capped.mean_shrink, capped.last_max_norm) == (1.0, pytest.approx(0.375), 1.0)
    far, near = ZClip(max_norm=100.0), ZClip(max_norm=None)
    assert clip_to(far, [*norms, 50.0]) == clip_to(near, [*norms, 50.0])
    assert clip_to(ZClip(max_norm=1.0), norms) == [1.0] * 80


def test_zclip_does_not_act_in_its_warmup() -> None:
    norms = [1.0] * 24 + [1e6]
    assert replay(norms, "ZClip").clip_rate == 0
    assert replay(norms[:24], "ZClip").last_max_norm is None
    assert replay([*norms[:24], 1.0, 1e6], "ZClip").clip_rate == 1 / 26


def test_autoclip_by_hand() -> None:
    low, high = replay([1.0, 2.0, 3.0], "AutoClip p10"), replay([1.0, 2.0, 3.0], "AutoClip p90")
    assert low.clip_rate == high.clip_rate == pytest.approx(2 / 3)
    assert low.mean_shrink == pytest.approx((1.1 / 2 + 1.2 / 3) / 2)
    assert high.mean_shrink == pytest.approx((1.9 / 2 + 2.8 / 3) / 2)
    assert low.last_max_norm == pytest.approx(1.2)


def test_six_sigma_by_hand() -> None:
    past = [1.0, 3.0] * 31 + [1.0]  # mean 125 / 63, bound 8.03
    assert replay([*past, 8.0], "mean + 6 sigma").clip_rate == 0
    assert replay([*past, 8.1], "mean + 6 sigma").clip_rate == 1 / 64
    assert replay([*past[1:], 8.1], "mean + 6 sigma").clip_rate == 0, "one step too early to skip"
    mean = 125 / 63
    std = math.sqrt((32 * (1 - mean) ** 2 + 31 * (3 - mean) ** 2) / 62)
    assert replay(past, "mean + 6 sigma").last_max_norm == pytest.approx(mean + 6 * std)
    assert replay(past[:-1], "mean + 6 sigma").last_max_norm is None


def test_a_skipped_norm_hides_the_next_until_it_leaves_the_window() -> None:
    calm = [1.0, 3.0] * 64
    spikes_near = [*calm, 1000.0, 100.0]
    spikes_apart = [*calm, 1000.0, *calm, 100.0]
    assert replay(spikes_near, "mean + 6 sigma").clip_rate == pytest.approx(1 / len(spikes_near))
    assert replay(spikes_apart, "mean + 6 sigma").clip_rate == pytest.approx(2 / len(spikes_apart))


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, 1.0, 1 / 3, 1e30])
@pytest.mark.parametrize("n", [1, 2, 26, 300])
def test_constant_norms_are_clipped_by_nothing_that_follows_them(value: float, n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        candidates = {c.name: c for c in replay_all(np.full(n, value), {95.0: value})}
    for name in ("p95", "ZClip", "AutoClip p10", "AutoClip p90", "mean + 6 sigma"):
        assert (candidates[name].clip_rate, candidates[name].mean_shrink) == (0.0, 1.0), name


@pytest.mark.parametrize("value", [1e-20, 1.0, 1e20])
def test_rounding_is_no_spike_to_zclip(value: float) -> None:
    assert replay([value] * 30 + [value * (1 + 1e-15)], "ZClip").clip_rate == 0
    assert replay([value] * 30 + [value * (1 + 1e-3)], "ZClip").clip_rate == 1 / 31


def test_without_norms_there_is_no_candidate() -> None:
    assert replay_all(np.array([]), {95.0: 1.0}) == ()
    assert replay_per_tensor(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), dtype=bool)) == ()


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e-3, 7.0, 1e30, 1e200])
@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_of_the_norms_does_not_matter_where_there_is_no_fixed_value(kind: str, scale: float) -> None:
    norms = np.array(series(kind, 3, 300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        here = {c.name: c for c in replay_all(norms, {90.0: 1.5})}
        there = {c.name: c for c in replay_all(norms * scale, {90.0: 1.5 * scale})}
    for name in ("p90", "ZClip", "AutoClip p10", "AutoClip p90", "mean + 6 sigma"):
        assert there[name].clip_rate == here[name].clip_rate, name
        assert there[name].mean_shrink == pytest.approx(here[name].mean_shrink), name
        if name != "p90":
            assert there[name].last_max_norm == pytest.approx(here[name].last_max_norm * scale), name


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=120))
def test_rates_and_shrinks_are_shares(norms: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        candidates = replay_all(np.array(norms), {95.0: max(norms)}, 2.0)
    for candidate in candidates:
        assert 0 <= candidate.clip_rate <= np.mean(np.array(norms) > 0)
        assert 0 <= candidate.mean_shrink <= 1
        assert (candidate.clip_rate > 0) == (candidate.mean_shrink < 1)


def per_tensor(norms: Floats, parameter_norms: Floats | None = None) -> tuple[Candidate, Candidate]:
    """AdaGC and AGC on gradient norms (rows, tensors), NaN where there is none."""
    own = np.full(norms.shape, 10.0) if parameter_norms is None else parameter_norms
    first, second = replay_per_tensor(norms, own, ~np.isnan(norms))
    return first, second


def test_adagc_by_hand() -> None:
    warmup = [[0.3, 0.4]] * 99 + [[3.0, 4.0]]  # joint norm 5, clipped to 1: the least norms stay 0.3 and 0.4
    late = [[0.63, 0.42], [0.3153, 0.4], [0.3154, 0.4]]
    adagc, _ = per_tensor(np.array(warmup + late))
    # 0.63 is clipped to 0.315; the average is then 0.98 x 0.3 + 0.02 x 0.315 = 0.3003, the next bound 0.315315. 0.3153
    # takes the average to 0.3006 and the bound to 0.31563.
    assert adagc.clip_rate == pytest.approx(2 / 103)
    assert adagc.mean_shrink == pytest.approx((1 / 5 + math.hypot(0.315, 0.42) / math.hypot(0.63, 0.42)) / 2)
    assert (adagc.max_norm, adagc.last_max_norm) == (None, None)


@pytest.mark.parametrize("seed", range(5))
def test_adagc_clips_as_its_paper_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    norms = np.exp(0.5 * random.standard_normal((250, 3))) * [0.5, 0.2, 0.05]
    expected = np.array(clip_by_adagc_paper(norms.tolist()))
    factors = np.linalg.norm(expected, axis=1) / np.linalg.norm(norms, axis=1)
    acted = (expected < norms * (1 - 1e-9)).any(axis=1)
    adagc, _ = per_tensor(norms)
    assert adagc.clip_rate == pytest.approx(acted.mean())
    assert adagc.mean_shrink == pytest.approx(factors[acted].mean())


def test_adagc_says_that_a_short_run_is_all_warmup() -> None:
    short, _ = per_tensor(np.full((100, 2), 0.1))
    long, _ = per_tensor(np.full((101, 2), 0.1))
    assert "all 100 steps" in short.note
    assert "all" not in long.note.split()


def test_a_tensor_whose_gradient_is_zero_or_missing_once_is_not_clipped_to_nothing_by_adagc() -> None:
    norms = np.full((200, 2), 0.3)
    norms[0, 0], norms[1, 0], norms[150, 0] = 0.0, np.nan, np.nan
    norms[:120, 1] = np.nan
    adagc, _ = per_tensor(norms)
    assert (adagc.clip_rate, adagc.mean_shrink) == (0.0, 1.0)


def test_adagc_bounds_a_tensor_that_comes_late_by_its_first_norm() -> None:
    norms = np.array([[0.3, np.nan]] * 101 + [[0.3, 0.4], [0.3, 0.42], [0.3, 4.2]])
    adagc, _ = per_tensor(norms)
    assert adagc.clip_rate == pytest.approx(1 / 104)
    bound = 1.05 * (0.98 * 0.4 + 0.02 * 0.42)
    assert adagc.mean_shrink == pytest.approx(math.hypot(0.3, bound) / math.hypot(0.3, 4.2))


def test_agc_by_hand() -> None:
    norms = np.array([[0.2, 0.05], [0.1, 0.1], [np.nan, 0.1]])
    _, agc = per_tensor(norms)  # a hundredth of 10
    assert agc.clip_rate == pytest.approx(1 / 3)
    assert agc.mean_shrink == pytest.approx(math.hypot(0.1, 0.05) / math.hypot(0.2, 0.05))
    _, floored = per_tensor(np.array([[1e-4], [1e-6]]), np.zeros((2, 1)))
    assert (floored.clip_rate, floored.mean_shrink) == (0.5, pytest.approx(0.1))


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e200])
def test_per_tensor_replays_stand_any_size(scale: float) -> None:
    norms = np.array([series("spiky", seed, 150) for seed in range(3)]).T
    norms[::7, 1] = np.nan
    own = np.full(norms.shape, 5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, here = per_tensor(norms, own)
        adagc, there = per_tensor(norms * scale, np.maximum(own * scale, 5.0))
        still = per_tensor(np.zeros((150, 3)))
    assert all(math.isfinite(value) for value in (adagc.clip_rate, adagc.mean_shrink))
    if scale > 1:
        assert (there.clip_rate, there.mean_shrink) == pytest.approx((here.clip_rate, here.mean_shrink))
    else:
        assert there.clip_rate == 0
    assert [(c.clip_rate, c.mean_shrink) for c in still] == [(0.0, 1.0), (0.0, 1.0)]
