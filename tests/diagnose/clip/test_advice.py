"""The advice as a whole: what it holds for which run, and what must not change it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradcheck_cli.clip_advice import VERDICTS, Candidate, ClipAdvice, ClipSettings
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.advice import advise, validate
from gradcheck_cli.judgement import make_clip_report
from gradcheck_cli.norm_list import assemble
from gradcheck_cli.records import Finding, Floats, Recording, RunInfo
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.view import View
from tests.diagnose.clip.series import interleave, lognormal, record, settled, steady
from tests.diagnose.recordings import make_recording
from tests.diagnose.rules.test_rules import is_plain

SCALED = {"p90", "p95", "p99", "ZClip", "AutoClip p10", "AutoClip p90", "mean + 6 sigma"}
PARAMETERS = {"a.weight": (4, 2), "b.weight": (2, 2), "c.weight": (3, 3), "d.weight": (2,)}
GROUPS = {"a.weight": 0, "b.weight": 0, "c.weight": 1, "d.weight": None}


def advice_on(norms: Floats, percentile: float = 95.0, horizon: int = 500, **members: Any) -> ClipAdvice:
    return advise(record(norms, **members), ClipSettings(percentile, horizon))


def grouped(norms: Mapping[str, Floats]) -> Recording:
    """A recording of parameters in two groups, and one in none; the global norm follows."""
    steps = len(next(iter(norms.values())))
    made = make_recording(steps=steps, parameters=PARAMETERS, norms=norms)
    return replace(made, parameters=tuple(replace(one, group=GROUPS[one.name]) for one in made.parameters))


def parts(kind: str, seed: int, steps: int) -> dict[str, Floats]:
    """Gradient norms of the parameters, of a kind."""
    random = np.random.default_rng(seed)
    common = lognormal(steps, seed, rho=0.6 if kind == "dependent" else 0.0)
    if kind == "spiky":
        common[random.random(steps) < 0.03] *= 25
    elif kind == "few values":
        common = random.choice([0.5, 1.0, 1.0, 2.0], steps)
    elif kind == "zeros":
        common[random.random(steps) < 0.1] = 0
    elif kind == "drifting":
        common *= np.linspace(1, 1.3, steps)
    elif kind == "constant":
        common = np.ones(steps)
    shares = random.random(4) + 0.1
    return {name: shares[i] * common for i, name in enumerate(PARAMETERS)}


KINDS = ("plain", "dependent", "spiky", "few values", "zeros", "drifting", "constant")
some_parts = st.builds(
    parts, st.sampled_from(KINDS), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 30, 80, 150, 400])
)


def values(advice: ClipAdvice) -> list[float | None]:
    """All that is in the unit of the norms."""
    ends: list[Sequence[float] | None] = [
        advice.interval,
        *(one.interval for one in advice.quantiles),
        *(group.interval for group in advice.groups),
    ]
    tail = advice.tail
    return [
        advice.max_norm,
        *(end for interval in ends for end in interval or (None, None)),
        *(one.value for one in advice.quantiles),
        *(group.max_norm for group in advice.groups),
        *((tail.threshold, tail.p99, tail.p99_empirical) if tail else ()),
        *(value for one in scaled(advice) for value in (one.max_norm, one.last_max_norm)),
        *advice.norms.tolist(),
    ]


def rates(advice: ClipAdvice) -> list[float | None]:
    """All that has no unit."""
    return [
        advice.expected_rate,
        *(advice.rate_interval or (None, None)),
        advice.validated_rate,
        *(advice.validated_interval or (None, None)),
        *(one.n_eff for one in advice.quantiles),
        *((advice.drift.p, advice.drift.change, *advice.drift.interval) if advice.drift else ()),
        *((advice.tail.shape, *advice.tail.interval) if advice.tail else ()),
        *(rate for one in scaled(advice) for rate in (one.clip_rate, one.mean_shrink)),
        *(share for one in (*advice.groups, *advice.layers) for share in (one.share, one.share_clipped)),
    ]


def scaled(advice: ClipAdvice) -> list[Candidate]:
    return [one for one in advice.candidates if one.name in SCALED]


def near(expected: Sequence[float | None], factor: float = 1.0, **tolerance: float) -> list[Any]:
    """What is equal to the expected values, times the factor; None only to None."""
    return [
        None if one is None else pytest.approx(one * factor, rel=1e-9, nan_ok=True, **tolerance) for one in expected
    ]


def words(advice: ClipAdvice) -> list[object]:
    """All that is no number, and the counts."""
    return [
        *(advice.verdict, advice.percentile, advice.steps_needed, advice.regime, advice.n, advice.warmup_excluded),
        *(advice.dominant, advice.looseness, advice.notes, len(advice.reasons)),
    ]


@settings(deadline=None, max_examples=60)
@given(norms=some_parts, power=st.integers(-300, 300))
@example(norms=parts("few values", 10736, 30), power=1)  # block medians that are equal but for rounding
def test_scaling_all_norms_by_a_power_of_two_scales_every_value_exactly(norms: dict[str, Floats], power: int) -> None:
    here = advise(grouped(norms), ClipSettings())
    there = advise(grouped({name: np.ldexp(one, power) for name, one in norms.items()}), ClipSettings())
    assert words(there) == words(here)
    assert values(there) == near(values(here), 2.0**power, abs=0.0)
    assert there.max_norm == (None if here.max_norm is None else math.ldexp(here.max_norm, power))
    assert rates(there) == near(rates(here), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(norms=some_parts, scale=st.floats(1e-100, 1e100))
def test_scaling_all_norms_scales_every_value(norms: dict[str, Floats], scale: float) -> None:
    here = advise(grouped(norms), ClipSettings())
    there = advise(grouped({name: one * scale for name, one in norms.items()}), ClipSettings())
    assert (there.verdict, there.percentile, there.n) == (here.verdict, here.percentile, here.n)
    assert values(there) == near(values(here), scale, abs=0.0)
    assert rates(there) == near(rates(here), abs=1e-9)


def test_which_of_several_equal_steps_came_first_changes_nothing() -> None:
    """Their layers differ, so that the steps do; what the advice says of all of them together does not."""
    steps = 300
    total = np.random.default_rng(0).permutation(np.repeat([1.0, 2.0, 3.0], [200, 80, 20]))
    total[:10] = [1, 2, 1, 2, 1, 1, 2, 1, 2, 1]
    angles = np.random.default_rng(1).uniform(0.1, 1.4, steps)

    def advice_in(order: Floats) -> ClipAdvice:
        norms = {"a.weight": total * np.cos(angles[order]), "c.weight": total * np.sin(angles[order])}
        made = grouped({**dict.fromkeys(PARAMETERS, np.zeros(steps)), **norms})
        return advise(replace(made, series=replace(made.series, grad_norm=total)), ClipSettings())

    here = advice_in(np.arange(steps))
    order = np.arange(steps)
    kept = np.arange(here.warmup_excluded, steps)
    for norm in (1.0, 2.0, 3.0):
        equal = kept[total[kept] == norm]
        order[equal] = np.random.default_rng(2).permutation(equal)
    there = advice_in(order)
    assert values(there)[: 1 + 2 * 4] == values(here)[: 1 + 2 * 4]
    assert (there.verdict, there.reasons, there.rate_interval) == (here.verdict, here.reasons, here.rate_interval)
    assert there.layers == here.layers
    assert scaled(there) == scaled(here)
    assert [one.share for one in there.groups] == [one.share for one in here.groups]


def test_the_order_of_the_steps_does_not_change_the_percentiles() -> None:
    norms = steady(600).reshape(-1, 5)
    for seed in range(5):
        advice = advice_on(np.random.default_rng(seed).permutation(norms).ravel())  # fives stay together: no warm-up
        assert advice.n == 600
        assert [one.value for one in advice.quantiles if one.value] == [
            float(np.sort(norms.ravel())[rank]) for rank in (540, 570, 594)
        ][: sum(one.value is not None for one in advice.quantiles)]


def test_a_percentile_that_cannot_be_had_falls_to_the_highest_that_can() -> None:
    """Asked for p99: 368 independent steps give it, 72 p95, 36 p90."""
    given_at = {300: 95.0, 600: 99.0}
    for steps, percentile in given_at.items():
        advice = advice_on(steady(steps), 99.0)
        assert (advice.percentile, advice.percentile_asked) == (percentile, 99.0)
        assert (advice.steps_needed is None) is (percentile == 99.0)
        assert advice.max_norm == next(one.value for one in advice.quantiles if one.percentile == percentile)
    seeds = [seed for seed in range(99) if 36 <= advice_on(lognormal(300, seed, rho=0.7), 99.0).quantiles[0].n_eff < 60]
    fallen = [advice_on(lognormal(300, seed, rho=0.7), 99.0) for seed in seeds]
    assert len(fallen) >= 5
    assert {advice.percentile for advice in fallen} <= {90.0, 95.0}
    assert 90.0 in {advice.percentile for advice in fallen}
    assert all(advice.steps_needed is not None and advice.steps_needed >= 600 for advice in fallen)
    nothing = advice_on(steady(30), 99.0)
    assert (nothing.verdict, nothing.percentile, nothing.max_norm) == ("insufficient-data", None, None)
    assert nothing.steps_needed is not None
    assert nothing.steps_needed >= 1.25 * 368


@pytest.mark.parametrize("percentile", [1.0, 50.0, 92.0, 99.9])
def test_any_percentile_can_be_asked_for_and_none_above_it_is_given(percentile: float) -> None:
    advice = advice_on(steady(600), percentile)
    assert [one.percentile for one in advice.quantiles] == sorted({90.0, 95.0, 99.0, percentile})
    assert advice.percentile == (99.0 if percentile == 99.9 else percentile)
    assert advice.max_norm == np.sort(steady(600))[round(advice.percentile / 100 * 601) - 1]
    assert advice.expected_rate == pytest.approx(1 - advice.percentile / 100, abs=0.05)


def test_asking_for_the_steps_that_it_wants_is_enough() -> None:
    for percentile in (90.0, 95.0, 99.0):
        for seed in range(10):
            norms = lognormal(4000, seed, rho=0.5)
            first = advice_on(norms[:100], percentile)
            if first.steps_needed is not None:
                assert first.steps_needed % 50 == 0
                assert first.steps_needed >= 200
                assert advice_on(norms[: 2 * first.steps_needed], percentile).max_norm is not None


everything = [
    ("clip", interleave([120, 200], settled(300), 30), {}),
    ("not-needed", steady(300), {}),
    ("fix-first", steady(300), {"loss": 1.02 ** np.arange(300)}),
    ("fix-first", np.r_[steady(3), math.nan], {}),
    ("insufficient-data", steady(30), {}),
]


@pytest.mark.parametrize(
    ("verdict", "norms", "members"), everything, ids=[f"{case[0]}-{len(case[1])}" for case in everything]
)
def test_a_value_and_its_rate_come_with_every_verdict_but_insufficient_data(
    verdict: str, norms: Floats, members: Mapping[str, Any]
) -> None:
    advice = make_clip_report(record(norms, **members), Settings()).clip
    assert advice is not None
    assert advice.verdict == verdict
    assert advice.reasons
    if verdict == "insufficient-data":
        assert (advice.max_norm, advice.percentile, advice.interval) == (None, None, None)
        assert (advice.expected_rate, advice.rate_interval, advice.validated_rate) == (None, None, None)
        assert advice.groups == ()
    else:
        assert advice.max_norm is not None
        assert advice.rate_interval is not None
        assert advice.expected_rate is not None
        assert advice.rate_interval.low <= advice.expected_rate <= advice.rate_interval.high
        assert (advice.interval is None) is (len(norms) == 4), "only what is too short for it has no interval"


def test_the_validated_rate_by_hand() -> None:
    """Of 40 the first 28 give the value: their p90 is the 26th, 26. Of the last 12 those above it are 4."""
    past = np.random.default_rng(0).permutation(np.arange(1.0, 29.0))
    rest = np.array([5, 30, 26, 26.5, 1, 2, 3, 27, 4, 40, 6, 7])
    outcome = validate(np.r_[past, rest], 90)
    assert outcome is not None
    rate, promised = outcome
    assert rate == 4 / 12
    assert 0 <= promised.interval.low <= promised.interval.high <= 1
    assert 12 * promised.interval.high == pytest.approx(round(12 * promised.interval.high)), "promised for 12 steps"


@pytest.mark.parametrize(("steps", "judged"), [(0, False), (1, False), (28, False), (29, True)])
def test_fewer_than_twenty_steps_to_fit_on_validate_nothing(steps: int, judged: bool) -> None:
    assert (validate(steady(steps), 95) is not None) is judged


def test_the_past_does_not_see_the_future() -> None:
    norms = steady(300)
    later = np.r_[norms[:210], 10 * norms[210:]]
    assert advice_on(norms).validated_rate == pytest.approx(0.05, abs=0.06)
    before, after = validate(norms, 95), validate(later, 95)
    assert before is not None
    assert after is not None
    assert after[0] == 1
    assert after[1] == before[1]


def test_the_regimes() -> None:
    warmup = np.arange(300) * 1e-5
    rising = steady(1200) * np.geomspace(1, 1.5, 1200)
    assert advice_on(steady(300)).regime == "initialisation"
    assert advice_on(steady(999)).regime == "initialisation"
    assert advice_on(steady(1000)).regime == "trained"
    assert advice_on(steady(300), checkpoint="model.pt").regime == "trained"
    assert advice_on(rising).regime == "drifting"
    assert advice_on(rising[:300] ** 4, checkpoint="model.pt").regime == "drifting"
    advice = advice_on(steady(300), lr=warmup)
    assert advice.regime == "warm-up"
    assert any("the learning rate still rises" in note for note in advice.notes)


def test_what_was_left_out_is_counted() -> None:
    norms = steady(300)
    norms[:100] *= 4
    norms[[20, 150]] = math.nan
    advice = advice_on(norms, lr=np.minimum(np.arange(300), 50) * 1e-4, skipped=[0, 299])
    assert advice.dropped == {"skipped": 2, "nonfinite": 2}
    assert advice.warmup_excluded >= 97
    assert advice.n == len(advice.norms) == 300 - advice.warmup_excluded - 4
    assert "the learning rate rises over 50 steps" in advice.warmup_reason
    assert "MSER-5" in advice.warmup_reason
    assert advice.max_norm is not None
    assert advice.max_norm < 2, "the large norms of the warm-up do not count"
    assert advice.steps == 300


def test_the_horizon_is_that_of_the_promise() -> None:
    short, long = advice_on(steady(300), horizon=1), advice_on(steady(300), horizon=2000)
    assert (short.horizon, long.horizon) == (1, 2000)
    assert short.rate_interval == (0, 1), "one step is clipped, or it is not"
    assert long.rate_interval is not None
    assert long.rate_interval.high < 1


def test_statistics_of_every_tenth_step_are_enough_for_layers_and_groups() -> None:
    norms = parts("plain", 3, 300)
    total = np.hypot.reduce(list(norms.values()))
    dense, thin = (
        grouped(norms),
        make_recording(steps=300, parameters=PARAMETERS, norms=norms, recorded=range(0, 300, 10)),
    )
    thin = replace(thin, parameters=dense.parameters)
    here, there = advise(dense, ClipSettings()), advise(thin, ClipSettings())
    assert there.norms.tolist() == pytest.approx(total[300 - there.n :].tolist())
    assert (there.max_norm, there.verdict) == (here.max_norm, here.verdict)
    assert [one.share for one in there.layers] == pytest.approx([one.share for one in here.layers])
    assert [one.max_norm for one in there.groups] == pytest.approx([one.max_norm for one in here.groups], rel=0.5)
    assert all(one.interval is None for one in there.groups), "thirty rows are too few"


def test_a_run_whose_statistics_are_all_of_the_warmup_has_no_layers() -> None:
    made = make_recording(
        steps=300, parameters=PARAMETERS, grad_norm=np.r_[np.full(50, 9.0), steady(250)], recorded=[0, 5]
    )
    advice = advise(made, ClipSettings())
    assert (advice.layers, advice.groups, advice.dominant) == ((), (), None)
    assert {one.name for one in advice.candidates} & {"AGC", "AdaGC"} == set()


numbers = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 1e-300, 1e300, math.nan, math.inf, 5e-324, 1.7e308]), st.floats(0, 1e9)
)


@st.composite
def strange_recordings(draw: st.DrawFn, largest: float = math.inf) -> Recording:
    """Any run: short patterns repeated, with noise or without, of odd norms, losses, rates and layers."""
    steps = draw(st.sampled_from([0, 1, 2, 3, 11, 30, 80, 120, 200]))
    noise = lognormal(steps, draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 1e-9, 0.3, 3.0])))

    def series(of: st.SearchStrategy[float]) -> Floats:
        head = draw(st.lists(of, min_size=1, max_size=8))
        return np.resize(np.array(head, dtype=np.float64), steps)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of making the recording
        norms = series(numbers) * (noise if draw(st.booleans()) else 1.0)
        norms = np.where(norms < np.inf, np.minimum(norms, largest), norms)
        own = draw(st.booleans())
        made = make_recording(
            steps=steps,
            parameters=PARAMETERS,
            modules={"a": draw(st.sampled_from(["LSTM", "Conv2d", "Linear", "PPOPolicy"]))},
            grad_norm=None if own else norms,
            norms={"a.weight": norms, "b.weight": norms[::-1], "c.weight": 1.0, "d.weight": None} if own else None,
            parameter_norm={"a.weight": series(numbers)},
            lr=series(st.sampled_from([0.0, 1e-3, 1e-2, math.nan, math.inf])) if draw(st.booleans()) else ramp(steps),
            loss=series(numbers),
            skipped=draw(st.sets(st.integers(0, 200), max_size=9)) if draw(st.booleans()) else range(steps),
            recorded=range(0, steps, draw(st.sampled_from([1, 7]))),
            optimizer=draw(st.sampled_from(["AdamW", "SGD", ""])),
            has_optimizer=draw(st.booleans()),
            max_norm=draw(st.sampled_from([None, 1.0])),
            checkpoint=draw(st.sampled_from(["", "model.pt"])),
        )
    groups = draw(st.lists(st.sampled_from([None, 0, 1]), min_size=4, max_size=4))
    pairs = zip(made.parameters, groups, strict=True)
    return replace(made, parameters=tuple(replace(one, group=group) for one, group in pairs))


def ramp(steps: int) -> Floats:
    return np.minimum(np.arange(steps) + 1.0, 20.0)


some_settings = st.builds(
    Settings,
    percentile=st.sampled_from([0.01, 1.0, 50.0, 90.0, 95.0, 99.9]),
    horizon=st.sampled_from([1, 2, 500]),
    max_norm=st.sampled_from([None, 5e-324, 1.0, 1.7e308]),
)


@settings(deadline=None, max_examples=200)
@given(recording=strange_recordings(), asked=some_settings)
def test_no_recording_breaks_the_advice(recording: Recording, asked: Settings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = make_clip_report(recording, asked)
    advice = report.clip
    assert advice is not None
    assert advice.verdict in VERDICTS
    assert advice.reasons
    assert advice.n + advice.warmup_excluded + sum(advice.dropped.values()) == advice.steps
    assert (advice.max_norm is None) is (advice.rate_interval is None)
    if advice.max_norm is not None:
        assert advice.max_norm > 0
    if advice.verdict == "insufficient-data":
        assert advice.max_norm is None
    if advice.verdict in ("clip", "not-needed"):
        assert advice.interval is not None
    for finding in report.diagnosis.findings:
        assert isinstance(finding, Finding)
        assert is_plain(dict(finding.evidence))


@settings(deadline=None, max_examples=60)
@given(recording=strange_recordings(largest=1e300), asked=some_settings)
def test_no_advice_breaks_a_report(recording: Recording, asked: Settings) -> None:
    report = make_clip_report(recording, asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for width in (80, 140):
            text = render(report, "table", View(width=width))
            assert isinstance(text, str)
            assert all(len(line) <= width for line in text.splitlines())
        document = render(report, "json")
    assert report.clip is not None
    assert json.loads(document)["clip"]["verdict"] == report.clip.verdict


@pytest.mark.parametrize("loss", [math.nan, 0.5])
def test_a_list_of_norms_of_another_tool_is_judged_by_its_norms(loss: float) -> None:
    norms = interleave([120], settled(300), 30)
    listed = assemble(RunInfo("norms.csv", "", "", None), norms, np.full(300, loss), np.zeros(300, dtype=np.bool_))
    report = make_clip_report(listed, Settings())
    assert report.clip is not None
    assert (report.clip.verdict, report.exit_code) == ("clip", 0)
    assert (report.clip.layers, report.clip.groups, report.clip.prior) == ((), (), None)
    assert report.clip.regime == "unknown", "a list may begin anywhere in the training"
