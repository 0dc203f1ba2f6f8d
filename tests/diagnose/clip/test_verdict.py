from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradcheck_cli.clip_advice import ClipAdvice, ClipSettings
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.advice import advise
from gradcheck_cli.diagnose.clip.verdict import find_spikes
from gradcheck_cli.judgement import make_clip_report
from gradcheck_cli.records import Floats, Recording
from tests.diagnose.clip.series import interleave, lognormal, record, settled, steady


def judge(norms: Floats, **members: Any) -> ClipAdvice:
    """The advice on a run with these norms, with what the other rules find in it."""
    return advice_on(record(norms, **members))


def advice_on(recording: Recording) -> ClipAdvice:
    advice = make_clip_report(recording, Settings()).clip
    assert advice is not None
    return advice


def exploding() -> Recording:
    """A run whose gradient grows by four decades toward the input, over eight like layers."""
    names = [f"net.{index}" for index in range(8)]
    growth = {name: 10.0 ** (4 - index / 7 * 4) for index, name in enumerate(names)}
    parameters = {f"{name}.weight": (4, 4) for name in names}
    return record(settled(300), parameters=parameters, output_grad_rms=growth)


@pytest.mark.parametrize(("length", "power"), [(110, 1), (300, 1), (300, 10), (2000, 1)])
def test_stable_norms_need_no_clipping(length: int, power: int) -> None:
    advice = judge(steady(length) ** power)
    assert advice.verdict == "not-needed"
    assert advice.reasons[0] == "no step beyond median + 6 robust sigmas of the log norm"
    assert advice.max_norm is not None
    assert advice.rate_interval is not None


def test_lognormal_norms_seldom_need_clipping() -> None:
    verdicts = [judge(lognormal(300, seed)).verdict for seed in range(60)]
    assert verdicts.count("clip") <= 1
    assert verdicts.count("not-needed") >= 57


def test_spikes_need_clipping() -> None:
    advice = judge(interleave([120, 200, 250], settled(300), 30))
    assert advice.verdict == "clip"
    assert "3 steps of 300 beyond median + 6 robust sigmas of the log norm, the largest" in advice.reasons[0]
    assert advice.max_norm is not None
    assert advice.max_norm < 2


@pytest.mark.parametrize("skipped", [0, 2])
def test_the_largest_is_named_by_its_step_in_the_run(skipped: int) -> None:
    norms = np.where(np.arange(300) == 250, 40.0, 0.5)
    advice = judge(norms, skipped=range(skipped))
    assert "the largest (40, 80 times the median) in step 250" in advice.reasons[0]


def test_a_heavy_tail_needs_clipping() -> None:
    random = np.random.default_rng(0)
    advice = judge((1 - random.random(2000)) ** -0.5)
    assert advice.verdict == "clip"
    assert any(reason.startswith("the tail is heavy: shape 0.") for reason in advice.reasons)
    assert advice.tail is not None
    assert advice.tail.interval.low > 0


def test_drifting_norms_alone_need_none_but_the_advice_says_that_they_drift() -> None:
    advice = judge(lognormal(1200, 1) * np.geomspace(1, 1.2, 1200))
    assert advice.verdict == "not-needed"
    assert advice.drift is not None
    assert advice.drift.found
    assert advice.regime == "drifting"
    assert any("the norms drift" in note for note in advice.notes)


def test_norms_that_do_nothing_but_drift_are_worth_too_few_steps() -> None:
    advice = judge(settled(400) * np.exp(0.005 * np.arange(400)))
    assert (advice.verdict, advice.max_norm) == ("insufficient-data", None)
    assert advice.drift is not None
    assert advice.drift.found
    assert advice.n_eff < 36


@pytest.mark.parametrize("length", [0, 1, 2, 30, 35])
def test_of_too_few_steps_nothing_is_said(length: int) -> None:
    advice = judge(steady(length))
    assert (advice.verdict, advice.max_norm, advice.rate_interval) == ("insufficient-data", None, None)
    kept = "1 kept step is" if length == 1 else f"{length} kept steps are"
    assert advice.reasons == (f"p90 needs 36 independent steps; the {kept} worth {int(advice.n_eff)}",)
    assert advice.steps_needed is not None
    assert advice.steps_needed >= max(2 * length, 50)


@pytest.mark.parametrize("length", [80, 90, 99, 103])
def test_a_percentile_without_a_tail_is_no_verdict(length: int) -> None:
    """p90 can be had, but not that clipping is not needed: then it says how many steps to ask for."""
    norms = np.random.default_rng(3).permutation(np.linspace(1, 1.2, length))
    advice = judge(norms)
    assert advice.n == length
    assert advice.n_eff >= 36
    assert (advice.verdict, advice.max_norm) == ("insufficient-data", None)
    assert advice.reasons == ("too few steps to judge the tail of the norms",)
    assert advice.steps_needed is not None
    assert advice.steps_needed >= 2 * length


def test_the_fewest_steps_for_a_verdict() -> None:
    advice = judge(np.random.default_rng(3).permutation(np.linspace(1, 1.2, 104)))
    assert (advice.n, advice.verdict) == (104, "not-needed")
    assert advice.tail is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_norms_are_to_be_fixed_first(bad: float) -> None:
    norms = settled(300)
    norms[[10, 200]] = bad
    advice = judge(norms)
    assert advice.verdict == "fix-first"
    assert advice.reasons[0] == "the gradient norm is not finite in 2 steps"
    assert advice.reasons[1].startswith("GC302 nonfinite-gradient: ")
    assert advice.max_norm is not None
    assert advice.interval is not None
    assert advice.rate_interval is not None


def test_steps_that_the_scaler_skipped_are_no_fault() -> None:
    norms = steady(300)
    norms[[0, 3]] = np.inf
    advice = judge(norms, skipped=[0, 3], uses_scaler=True, precision="fp16")
    assert advice.verdict == "not-needed"
    assert advice.dropped == {"skipped": 2, "nonfinite": 0}


def test_a_diverging_loss_is_to_be_fixed_first() -> None:
    advice = judge(settled(300), loss=1.02 ** np.arange(300))
    assert advice.verdict == "fix-first"
    assert advice.reasons[0].startswith("GC203 loss-divergence: ")
    assert advice.max_norm is not None
    assert advice.rate_interval is not None


def test_exploding_layers_are_to_be_fixed_first() -> None:
    advice = advice_on(exploding())
    assert advice.verdict == "fix-first"
    assert advice.reasons[0].startswith("GC102 exploding-gradient: ")
    assert advice.max_norm is not None


def test_what_is_ill_comes_before_spikes_and_before_too_few_steps() -> None:
    assert judge(interleave([120], settled(300), 30), loss=1.02 ** np.arange(300)).verdict == "fix-first"
    assert judge(np.array([1.0, np.nan])).verdict == "fix-first"


@pytest.mark.parametrize("good", [1, 2, 5, 30])
def test_a_very_short_ill_run_has_a_value_without_an_interval(good: int) -> None:
    """It broke down so soon that the value is the percentile of what there was; its rate is as good as unknown."""
    advice = judge(np.r_[steady(good), np.nan])
    assert advice.verdict == "fix-first"
    assert advice.max_norm == np.sort(steady(good))[round(0.95 * (good + 1)) - 1 if good > 19 else -1]
    assert advice.interval is None
    assert advice.rate_interval is not None
    assert advice.rate_interval.high > 0.1
    assert "too few steps for an interval: the value is a rough one" in advice.notes


@pytest.mark.parametrize("norms", [[np.nan] * 30, [0.0] * 30 + [np.nan]])
def test_an_ill_run_without_a_single_norm_above_zero_has_no_value(norms: list[float]) -> None:
    advice = judge(np.array(norms))
    assert (advice.verdict, advice.max_norm, advice.rate_interval) == ("fix-first", None, None)


@pytest.mark.parametrize("length", [30, 300])
def test_of_gradients_that_are_all_zero_nothing_can_be_said(length: int) -> None:
    advice = judge(np.zeros(length))
    assert (advice.verdict, advice.max_norm) == ("insufficient-data", None)
    assert advice.reasons == ("every gradient is zero, there is nothing to clip",)


def test_a_value_of_zero_is_never_given() -> None:
    """It would stop the training. Here 97 of 100 gradients are zero, so that p95 is."""
    norms = np.where(np.arange(400) % 33 == 7, settled(400), 0.0)
    advice = judge(norms)
    assert (advice.verdict, advice.max_norm, advice.percentile) == ("insufficient-data", None, None)
    assert advice.reasons == ("p90 is 0: 388 of 400 gradients are zero",)


def test_zeros_among_the_norms_are_not_what_the_others_are_compared_with() -> None:
    norms = np.where(np.arange(400) % 5 < 3, 0.0, np.random.default_rng(0).permutation(settled(400)))
    assert judge(norms).verdict == "not-needed"
    spiky = judge(interleave([388], norms, 20))
    assert spiky.verdict == "clip"
    assert spiky.reasons[0].startswith("1 step of 400 beyond")


@pytest.mark.parametrize("norm", [0.3, 1.0, 1e-300, 1e300])
def test_constant_norms_need_no_clipping(norm: float) -> None:
    advice = judge(np.full(300, norm))
    assert (advice.verdict, advice.max_norm, advice.interval) == ("not-needed", norm, (norm, norm))
    assert advice.rate_interval is not None
    assert advice.rate_interval.high < 0.02


def test_six_robust_sigmas_are_the_limit() -> None:
    """Log norms -1, 0, 1 in turn: their median absolute deviation is 1."""
    logs = np.resize([-1.0, 0.0, 1.0], 300)
    for last, spike in [(6 * 1.4826 - 0.01, False), (6 * 1.4826 + 0.01, True)]:
        logs[-1] = last
        assert find_spikes(np.exp(logs)).tolist() == [False] * 299 + [spike]


def test_however_alike_the_norms_a_tenth_more_is_no_spike() -> None:
    assert not find_spikes(np.r_[np.ones(50), 1.09]).any()
    assert find_spikes(np.r_[np.ones(50), 1.11]).sum() == 1


def test_the_verdict_does_not_depend_on_the_unit() -> None:
    for norms in (settled(300), interleave([120], settled(300), 30), steady(20)):
        here = advise(record(norms), ClipSettings())
        for scale in (1e-200, 3e-7, 1e9, 1e200):
            assert advise(record(norms * scale), ClipSettings()).verdict == here.verdict
