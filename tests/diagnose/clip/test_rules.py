"""The rules on clipping: when they fire, and what the report makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradcheck_cli.clip_advice import ClipAdvice, ClipSettings
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.advice import advise
from gradcheck_cli.diagnose.clip.rules import CLIP_RULES
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.judgement import make_clip_report
from gradcheck_cli.records import Finding, Floats, Recording, Report, Severity
from tests.diagnose.clip.series import interleave, record, settled, steady
from tests.diagnose.recordings import MLP, make_recording

RULES: Mapping[str, Rule[ClipAdvice]] = {rule.code: rule for rule in CLIP_RULES}
STABLE, SPIKY = steady(300), interleave([120, 200], settled(300), 30)
FOUR = {f"{name}.weight": (2, 2) for name in "abcd"}
RISING = 1.02 ** np.arange(300)


def advice_on(norms: Floats, max_norm: float | None = None, percentile: float = 95.0, **members: Any) -> ClipAdvice:
    return advise(record(norms, **members), ClipSettings(percentile, max_norm=max_norm))


def found(code: str, advice: ClipAdvice) -> list[Finding]:
    """What one rule finds; it is of that rule, and says something."""
    outcomes = list(RULES[code].check(advice, Limits()))
    findings = [outcome for outcome in outcomes if isinstance(outcome, Finding)]
    assert len(findings) == len(outcomes) <= 1
    for finding in findings:
        assert (finding.code, finding.name) == (code, RULES[code].name)
        assert finding.message
        assert finding.hint
        assert finding.evidence
    return findings


def codes(advice: ClipAdvice) -> list[str]:
    return [code for code in RULES for _ in found(code, advice)]


def test_a_stable_run_gets_no_finding() -> None:
    assert codes(advice_on(STABLE)) == []


def test_a_max_norm_above_every_norm_never_acts() -> None:
    (finding,) = found("GC401", advice_on(STABLE, max_norm=10.0))
    assert finding.severity is Severity.INFO
    assert finding.message.startswith("max_norm 10 clips none of 300 steps: the largest norm is 1.0")
    assert finding.evidence == {"max_norm": 10.0, "clip_rate": 0.0, "largest_norm": STABLE.max()}


@pytest.mark.parametrize(
    ("beyond", "of", "effect"),
    [(0, 2000, "never-acts"), (1, 2000, "never-acts"), (2, 2000, "acts"), (200, 400, "acts"), (201, 400, "normalises")],
)
def test_under_one_in_a_thousand_it_never_acts_and_above_half_it_normalises(beyond: int, of: int, effect: str) -> None:
    norms = np.resize([3.0, 1.0], of) if beyond >= 200 else np.ones(of)
    norms[of - beyond % 200 :] = 3.0  # the last of 400 was below
    advice = advice_on(norms, max_norm=2.0)
    assert advice.judged is not None
    assert advice.n == of
    assert (advice.judged.clip_rate, advice.judged.effect) == (beyond / of, effect)
    assert bool(found("GC401", advice)) is (effect == "never-acts")
    assert bool(found("GC402", advice)) is (effect == "normalises")


def test_what_is_clipped_once_in_very_many_steps_says_so() -> None:
    norms = np.where(np.arange(2000) == 1500, 3.0, 1.0)
    (finding,) = found("GC401", advice_on(norms, max_norm=2.0))
    assert finding.message == "max_norm 2 clips 0.05 % of 2000 steps"


def test_a_max_norm_below_most_norms_always_acts() -> None:
    advice = advice_on(STABLE, max_norm=0.5)
    (finding,) = found("GC402", advice)
    assert finding.severity is Severity.WARNING
    assert finding.message.startswith("max_norm 0.5 clips 100 % of 300 steps")
    assert f"max_norm={advice.max_norm:.3g}" in finding.hint
    assert finding.evidence == {"max_norm": 0.5, "clip_rate": 1.0}


def test_without_a_value_none_is_recommended_instead() -> None:
    advice = advice_on(steady(20), max_norm=0.5)
    assert advice.max_norm is None
    (finding,) = found("GC402", advice)
    assert "max_norm=" not in finding.hint


@pytest.mark.parametrize("code", ["GC401", "GC402"])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_without_a_max_norm_or_with_one_that_acts_there_is_nothing_to_say(code: str, max_norm: float | None) -> None:
    assert not found(code, advice_on(STABLE, max_norm=max_norm))


def test_spikes_without_a_max_norm_need_one() -> None:
    advice = advice_on(SPIKY)
    (finding,) = found("GC403", advice)
    assert finding.severity is Severity.INFO
    assert finding.message == "; ".join(advice.reasons)
    assert finding.hint == f"clip_grad_norm_(model.parameters(), max_norm={advice.max_norm:.3g})"
    assert finding.evidence == {"max_norm": advice.max_norm, "largest_norm": SPIKY.max()}


@pytest.mark.parametrize(("max_norm", "fires"), [(2.0, False), (0.5, False), (1000.0, True)])
def test_a_max_norm_that_acts_on_them_is_enough(max_norm: float, fires: bool) -> None:
    assert bool(found("GC403", advice_on(SPIKY, max_norm=max_norm))) is fires


@pytest.mark.parametrize("verdict", ["not-needed", "fix-first", "insufficient-data"])
def test_with_another_verdict_clipping_is_not_called_for(verdict: str) -> None:
    assert found("GC403", advice_on(SPIKY))
    assert not found("GC403", replace(advice_on(SPIKY), verdict=verdict))


def with_norms(norms: Mapping[str, Any], parameters: Mapping[str, tuple[int, ...]]) -> Recording:
    """A recording whose global norm follows from those of its parameters."""
    return make_recording(steps=300, parameters=parameters, norms=norms)


@pytest.mark.parametrize(("large", "fires"), [(10.0, True), (8.0, True), (7.0, False), (1.0, False)])
def test_a_layer_that_makes_95_percent_of_the_squared_norm_dominates(large: float, fires: bool) -> None:
    """Three others of norm 1: its share is x^2 / (x^2 + 3), .971, .955, .942, .25."""
    norms = {"a.weight": large * steady(300), "b.weight": 1.0, "c.weight": 1.0, "d.weight": 1.0}
    findings = found("GC404", advise(with_norms(norms, FOUR), ClipSettings()))
    assert bool(findings) is fires
    for finding in findings:
        assert (finding.layer, finding.severity) == ("a", Severity.INFO)
        assert finding.evidence["share"] == pytest.approx(large**2 / (large**2 + 3), abs=0.002)
        assert finding.evidence["regime"] == "initialisation"


def test_with_fewer_than_four_layers_none_dominates() -> None:
    norms = {"fc1.weight": 100.0, "fc1.bias": 1.0, "fc2.weight": 1.0, "fc2.bias": 1.0}
    advice = advise(with_norms(norms, MLP), ClipSettings())
    assert (advice.layers[0].name, advice.layers[0].share) == ("fc1", pytest.approx(10001 / 10003))
    assert not found("GC404", advice)


@pytest.mark.parametrize(("steps", "percentile"), [(200, 95.0), (200, 90.0), (500, 99.0)])
def test_enough_steps_are_no_finding(steps: int, percentile: float) -> None:
    assert not found("GC405", advice_on(steady(steps), percentile=percentile))


def test_a_lower_percentile_instead_is_information() -> None:
    advice = advice_on(STABLE, percentile=99.0)
    (finding,) = found("GC405", advice)
    assert finding.severity is Severity.INFO
    assert finding.message.startswith("p99 needs 368 independent steps; the 300 kept of 300 are worth ")
    assert finding.message.endswith("(p95 instead)")
    assert finding.hint == f"--steps {advice.steps_needed}, or --until-stable"
    assert finding.evidence["needed"] == 368
    assert finding.evidence["n_eff"] <= finding.evidence["n"] == finding.evidence["steps"] == 300


def test_no_value_at_all_is_a_warning() -> None:
    (finding,) = found("GC405", advice_on(steady(30)))
    assert finding.severity is Severity.WARNING
    assert finding.message.startswith("p95 needs 72 independent steps; the 30 kept of 30 are worth ")
    assert finding.message.endswith("(no value)")


def test_steps_that_are_too_few_for_the_tail_are_a_warning_too() -> None:
    """They are enough for the percentile, so that is not what it says."""
    advice = advice_on(np.random.default_rng(3).permutation(np.linspace(1, 1.2, 99)))
    (finding,) = found("GC405", advice)
    assert finding.severity is Severity.WARNING
    assert finding.message == "the 99 kept of 99 are enough for p95, but not to judge the tail of the norms (no value)"


def test_a_rough_value_is_called_one() -> None:
    advice = advise(record(np.r_[steady(20), np.nan]), ClipSettings())
    assert advice.max_norm is not None
    (finding,) = found("GC405", advice)
    assert finding.message.endswith("(a rough value, without an interval)")


def report_on(norms: Floats, settings: Settings | None = None, **members: Any) -> Report:
    return make_clip_report(record(norms, **members), settings or Settings())


def reported(report: Report) -> list[str]:
    return [finding.code for finding in report.diagnosis.findings]


def test_the_report_has_the_findings_of_the_rules() -> None:
    report = report_on(SPIKY)
    assert reported(report) == ["GC403"]
    assert report.exit_code == 0
    assert report.clip is not None
    assert report.clip.verdict == "clip"
    assert [rule.code for rule in report.rules] == list(RULES)


def test_the_worst_comes_first() -> None:
    report = report_on(SPIKY, Settings(max_norm=0.5, percentile=99.0))
    assert reported(report) == ["GC402", "GC405"]
    report = report_on(settled(300), Settings(max_norm=100.0), loss=RISING)
    assert reported(report) == ["GC203", "GC401"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(max_norm=0.5, percentile=99.0), ["GC402", "GC405"]),
        (Settings(max_norm=0.5, percentile=99.0, select=("GC405",)), ["GC405"]),
        (Settings(max_norm=0.5, percentile=99.0, select=("GC4",)), ["GC402", "GC405"]),
        (Settings(max_norm=0.5, percentile=99.0, ignore=("GC402",)), ["GC405"]),
        (Settings(max_norm=0.5, percentile=99.0, ignore=("GC4",)), []),
        (Settings(max_norm=0.5, percentile=99.0, select=("GC4",), ignore=("GC405",)), ["GC402"]),
    ],
)
def test_select_and_ignore_choose_the_rules(settings: Settings, expected: list[str]) -> None:
    report = report_on(SPIKY, settings)
    assert reported(report) == expected
    assert {rule.code for rule in report.rules} >= set(expected)
    assert report.clip is not None
    assert report.clip.verdict == "clip", "the advice is the same whatever rules are chosen"


def test_a_severity_can_be_changed_and_decides_the_exit_code() -> None:
    report = report_on(SPIKY, Settings(severity={"GC403": Severity.ERROR}))
    assert [finding.severity for finding in report.diagnosis.findings] == [Severity.ERROR]
    assert report.exit_code == 1
    assert report_on(SPIKY, Settings(max_norm=0.5)).exit_code == 0
    assert report_on(SPIKY, Settings(max_norm=0.5, fail_on="warning")).exit_code == 1
    assert report_on(SPIKY, Settings(max_norm=0.5, severity={"GC402": Severity.INFO}, fail_on="warning")).exit_code == 0


def test_a_fault_that_is_not_selected_decides_the_verdict_but_not_the_exit_code() -> None:
    report = report_on(settled(300), Settings(select=("GC4",)), loss=RISING)
    assert report.clip is not None
    assert (report.clip.verdict, reported(report), report.exit_code) == ("fix-first", [], 0)


def test_what_clipping_would_hide_fails_the_command() -> None:
    report = report_on(settled(300), loss=RISING)
    assert reported(report) == ["GC203"]
    assert report.exit_code == 1
    assert report.clip is not None
    assert report.clip.verdict == "fix-first"
    assert report_on(settled(300), Settings(fail_on="never"), loss=RISING).exit_code == 0


@pytest.mark.parametrize("settings", [Settings(ignore=("GC203",)), Settings(severity={"GC203": Severity.WARNING})])
def test_who_does_not_mind_a_diverging_loss_gets_the_verdict_on_the_norms(settings: Settings) -> None:
    report = report_on(settled(300), settings, loss=RISING)
    assert reported(report) == []
    assert report.exit_code == 0
    assert report.clip is not None
    assert report.clip.verdict == "not-needed"


def test_nonfinite_norms_stay_a_fault_whatever_is_ignored() -> None:
    report = report_on(np.r_[settled(300), np.inf], Settings(ignore=("GC2", "GC3")))
    assert report.clip is not None
    assert report.clip.verdict == "fix-first"


def test_a_run_that_failed_exits_with_2() -> None:
    report = make_clip_report(record(STABLE), Settings(), GradcheckError("it broke"))
    assert (report.exit_code, report.error) == (2, "it broke")


@pytest.mark.parametrize("settings", [Settings(select=("GC9",)), Settings(severity={"GC999": Severity.INFO})])
def test_a_rule_that_does_not_exist_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="GC9"):
        report_on(STABLE, settings)


def test_messages_are_one_line() -> None:
    for norms, max_norm in [(SPIKY, 0.5), (SPIKY, 1e9), (steady(20), None)]:
        advice = advice_on(norms, max_norm, 99.0)
        for code in RULES:
            assert all(re.fullmatch(r"\S.*\S", finding.message) for finding in found(code, advice))
