"""What holds for every rule on ranks."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.diagnosis import diagnose, rules_for
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Rule
from gradcheck_cli.diagnose.rules.ranks import RANK_RULES
from gradcheck_cli.ranks import Desync, Ranks, UnusedOnSome
from gradcheck_cli.records import Finding, Recording
from tests.diagnose.outcomes import silent
from tests.diagnose.rules.ranks.runs import made, make_ranks, run_of
from tests.diagnose.rules.test_rules import is_plain

every_rule = pytest.mark.parametrize("rule", RANK_RULES, ids=lambda rule: rule.name)


@every_rule
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("size", [2, 3, 4, 64])
def test_ranks_that_are_alike_get_nothing(rule: Rule[Recording], size: int, accumulate: int) -> None:
    assert silent(rule, run_of(make_ranks(size), accumulate=accumulate))


@every_rule
def test_a_run_of_one_process_gets_no_line(rule: Rule[Recording]) -> None:
    assert silent(rule, run_of(None, accumulate=4))


@every_rule
def test_one_rank_alone_is_not_judged(rule: Rule[Recording]) -> None:
    (outcome,) = rule.check(run_of(make_ranks(1), accumulate=4), Limits())
    assert not isinstance(outcome, Finding)
    assert outcome.reason == "there is only one rank"


@every_rule
def test_without_a_step_nothing_is_found(rule: Rule[Recording]) -> None:
    outcomes = list(rule.check(made(steps=0), Limits()))
    assert not [one for one in outcomes if isinstance(one, Finding)]


def test_the_rules_run_only_where_there_are_ranks() -> None:
    slow = np.full((40, 4), 0.001)
    slow[:, 2] = 0.009
    several = made(own_seconds=slow)
    assert [one.code for one in diagnose(several).findings] == ["GC704"]
    alone = run_of(None)
    assert set(rules_for(several)) - set(rules_for(alone)) == set(RANK_RULES)
    diagnosis = diagnose(alone)
    assert not [one for one in (*diagnosis.findings, *diagnosis.not_evaluated) if one.code.startswith("GC7")]


numbers = st.one_of(
    st.sampled_from([0.0, 1.0, 1e-300, 1e300, 5e-324, math.nan, math.inf]), st.floats(0, allow_infinity=True)
)
times = st.one_of(st.sampled_from([0.0, 1.0, math.nan, math.inf]), st.floats(1e-9, 1e6))
PARAMETERS = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]


@st.composite
def any_ranks(draw: st.DrawFn) -> Ranks:
    size, steps = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([0, 1, 9, 12, 25]))
    some = st.lists(st.integers(0, size - 1), min_size=1, max_size=size, unique=True).map(sorted).map(tuple)
    step = st.integers(0, max(0, steps - 1))

    def some_of(each: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(each, max_size=4 if steps else 0))

    def table(values: st.SearchStrategy[Any], dtype: Any = np.float64) -> Any:
        pattern = draw(st.lists(values, min_size=1, max_size=7))
        return np.resize(np.array(pattern, dtype=dtype), (steps, size))

    return make_ranks(
        size,
        steps,
        **{name: table(numbers) for name in ("loss", "grad_norm")},
        nonfinite=table(st.sampled_from([0.0, 0.0, 3.0, math.nan])),
        **{name: table(times) for name in ("seconds", "own_seconds")},
        batch=table(st.integers(-1, 5), np.int64),
        syncs=table(st.integers(-1, 5), np.int64),
        sync_seconds=draw(times),
        finds_unused=draw(st.booleans()),
        unused=some_of(st.builds(UnusedOnSome, st.sampled_from(PARAMETERS), step, step, some)),
        desyncs=some_of(st.builds(Desync, st.sampled_from([*PARAMETERS, "x"]), st.booleans(), step, some)),
        checked=draw(st.lists(step, max_size=4, unique=True).map(sorted).map(tuple)),
    )


@settings(deadline=None, max_examples=150)
@given(ranks=any_ranks(), accumulate=st.integers(1, 3), skipped=st.sets(st.integers(0, 24)))
def test_no_ranks_break_a_rule(ranks: Ranks, accumulate: int, skipped: set[int]) -> None:
    recording = run_of(ranks, accumulate=accumulate, skipped=skipped)
    for rule in RANK_RULES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcomes = list(rule.check(recording, Limits()))
        for outcome in outcomes:
            assert (outcome.code, outcome.name) == (rule.code, rule.name)
            if isinstance(outcome, Finding):
                assert outcome.message
                assert outcome.hint
                assert is_plain(dict(outcome.evidence)), outcome.evidence
                assert outcome.step is None or (type(outcome.step) is int and 0 <= outcome.step < recording.steps)
                assert all(math.isfinite(one) for one in outcome.evidence.values() if isinstance(one, float))
