"""The corpus is what it says: every case fails at its step in a plain torch loop, every control stays finite."""

from __future__ import annotations

import pytest

from tests.nan_corpus.corpus import Case
from tests.nan_corpus.plain_loop import find_failure, load_corpus

CASES, CONTROLS = load_corpus()
MOST_STEPS = 5
CONTROL_STEPS = 3


def name_of(case: Case) -> str:
    return f"{case.file.stem}-{case.name}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case_fails_at_its_step(case: Case) -> None:
    failure = find_failure(case, MOST_STEPS)
    assert failure is not None, "all stays finite"
    assert failure.step == case.step, failure
    assert (failure.what == "error") == case.error, failure
    if failure.what in ("loss", "gradient"):
        assert failure.micro_batch == case.micro_batch, failure


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_case_marks_its_line(case: Case) -> None:
    assert 1 <= len(case.lines) <= 2
    assert case.cause


@pytest.mark.parametrize("control", CONTROLS, ids=name_of)
def test_control_stays_finite(control: Case) -> None:
    assert find_failure(control, control.settings.get("steps", CONTROL_STEPS)) is None


def test_the_corpus_was_found() -> None:
    assert CASES
    assert CONTROLS
