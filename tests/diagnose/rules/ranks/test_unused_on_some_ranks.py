from __future__ import annotations

from dataclasses import replace

import pytest

from gradcheck_cli.diagnose.rules.ranks import unused_on_some_ranks
from gradcheck_cli.ranks import UnusedOnSome
from gradcheck_cli.records import Severity
from tests.diagnose.outcomes import findings, reasons
from tests.diagnose.rules.ranks.runs import made, make_ranks, run_of

RULE = unused_on_some_ranks.check
HEAD = (UnusedOnSome("fc2.weight", 7, 12, (1, 3)), UnusedOnSome("fc2.bias", 5, 13, (1,)))


def test_a_module_that_some_ranks_leave_out_is_one_finding() -> None:
    (found,) = findings(RULE, made(unused=HEAD))
    assert (found.severity, found.layer, found.step) == (Severity.WARNING, "fc2", 5)
    assert found.evidence["parameters"] == ["fc2.weight", "fc2.bias"]
    assert found.evidence["ranks_without_gradient"] == [1]
    assert found.evidence["steps_with_difference"] == 13
    assert "fc2 (2 parameters)" in found.message
    assert "find_unused_parameters=True hangs there" in found.message
    assert "in 13 of 40 steps" in found.message


def test_modules_apart_are_findings_apart() -> None:
    unused = (UnusedOnSome("a.x.weight", 0, 1, (1,)), UnusedOnSome("b.weight", 0, 1, (1,)))
    shapes = {"a.x.weight": (2,), "a.y.weight": (2,), "b.weight": (2,)}
    found = findings(RULE, run_of(make_ranks(unused=unused), parameters=shapes))
    assert [one.layer for one in found] == ["a.x", "b"]


@pytest.mark.parametrize(
    ("strategy", "finds_unused", "severity"),
    [
        ("own", True, Severity.INFO),
        ("own", False, Severity.WARNING),
        ("ddp", True, Severity.WARNING),
        ("none", True, Severity.WARNING),
    ],
)
def test_whoever_has_asked_for_it_is_only_told(strategy: str, finds_unused: bool, severity: Severity) -> None:
    ranks = replace(make_ranks(unused=HEAD, finds_unused=finds_unused), strategy=strategy)
    (found,) = findings(RULE, run_of(ranks))
    assert found.severity is severity
    assert ("hangs" in found.message) is (severity is Severity.WARNING)


def test_a_parameter_that_is_frozen_in_the_end_is_silent() -> None:
    assert findings(RULE, run_of(make_ranks(unused=HEAD), frozen=["fc2.weight", "fc2.bias"])) == []


def test_without_a_step_it_is_not_evaluated() -> None:
    assert reasons(RULE, made(steps=0)) == ["no step was recorded"]
