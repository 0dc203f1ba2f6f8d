"""The catalogue: every cause is the first to apply to a case of its own, and says it in numbers and code."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import pytest

from gradcheck_cli.diagnose.nan.causes import CAUSES
from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from tests.diagnose.nan.cause_cases import CASES
from tests.diagnose.nan.cause_tapes import derivative, read
from tests.diagnose.nan.tapes import TapeBuilder, outside, state


@pytest.mark.parametrize("cause", CASES)
def test_it_is_the_first_to_apply(cause: str) -> None:
    origin = CASES[cause]()
    assert origin.cause == cause, origin.explanation
    assert origin.explanation.strip()
    assert "None" not in origin.explanation
    ast.parse(origin.fix)


def test_every_cause_has_a_case_of_its_own() -> None:
    assert sorted(CASES) == sorted(cause.id for cause in CAUSES)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_it_is_documented(cause: Any) -> None:
    title, _, body = cause.documentation.partition("\n\n## What happens\n\n")
    happens, _, fix = body.partition("\n\n## How to fix\n\n")
    assert title == f"# {cause.title}"
    assert happens.strip().endswith(".")
    assert fix.strip().endswith(".")
    assert set(cause.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_the_numbers_of_the_offending_input() -> None:
    many = outside("batch:[0]", shape=(64, 64), zeros=12, low=0.0)
    origin = derivative("sqrt", many, line="torch.sqrt(x.pow(2).mean(-1, keepdim=True))")()
    expected = "12 of 4096 inputs of sqrt are exactly 0, where its slope is infinite (0 · inf = NaN)"
    assert origin.explanation == expected
    assert origin.fix == "torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)"
    stats = dict(origin.input_stats)
    assert stats["self"].zeros == 12
    assert stats["gradient"].finite


def test_the_rows_of_a_batch() -> None:
    origin = read("batch:[0]['x']", shape=(32, 3), bad_rows=(4, 7))()
    assert origin.explanation == "1 of 96 elements of batch[0]['x'] is NaN, in rows 4, 7"


def test_a_column_that_is_bad_in_every_sample() -> None:
    origin = read("batch:[0]", shape=(4, 3), bad_rows=(0, 1, 2, 3))()
    assert "standard deviation of 0" in origin.explanation
    assert ".std(0).clamp" in origin.fix


def test_a_scale_that_a_distribution_refuses() -> None:
    tape = TapeBuilder()
    line = "torch.distributions.Normal(mean, scale)"
    checked = tape.run("_local_scalar_dense", outside("batch:[0]"), out=state(), line=line)
    built, sink = tape.sink(checked, "error", "Expected parameter scale")
    origin = explain(built, find_origin(built, replace(sink, nan_from=(0,))))
    assert (origin.cause, origin.kind, origin.op) == ("normal-scale-zero", "finite", "")
