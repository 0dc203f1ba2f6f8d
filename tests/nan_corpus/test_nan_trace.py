"""nan-trace on the corpus: right line, right phase, right operator, proved, and silent on the controls."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.tape import NanOrigin, NanTrace
from tests.nan_corpus.corpus import CASES, CONTROLS, Case, Entrypoint
from tests.nan_corpus.plain_loop import load_corpus

load_corpus()

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the users' own: std of one element, say


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Of the module's scope, so that the tests of a case follow each other: it is traced once for them."""
    return request.param  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def trace_of(entrypoint: Entrypoint) -> NanTrace:
    return traced(next(case for case in CASES if case.entrypoint is entrypoint))


def traced(case: Case) -> NanTrace:
    settings = replace(Settings(steps=8, quiet=True), **case.settings)
    report, error = pipeline.nan_trace(case.target, settings)
    assert error is None
    assert report.trace is not None
    assert report.exit_code == int(report.trace.step >= 0)
    return report.trace


def line_of(origin: NanOrigin) -> int:
    return origin.frame.location.line if origin.frame else -1


def test_names_the_origin(case: Case) -> None:
    trace = trace_of(case.entrypoint)
    assert trace.origins, (trace.sinks, trace.notes)
    origin = trace.origins[0]
    assert line_of(origin) in case.lines
    assert origin.phase == case.phase
    assert origin.source == case.source
    assert (trace.step, origin.micro_batch) == (case.step, case.micro_batch)
    assert sorted(map(line_of, trace.origins)) == case.lines
    assert bool(trace.error) == case.error
    if case.op:
        assert origin.op in ((case.op,) if isinstance(case.op, str) else case.op)
    if case.samples is not None:
        assert origin.samples == case.samples


def test_explains_and_proves(case: Case) -> None:
    trace = trace_of(case.entrypoint)
    assert all(origin.explanation and origin.fix for origin in trace.origins)
    assert trace.origins[0].cause == case.cause
    assert trace.origins[0].kind == case.kind
    refused = case.kind == "finite"  # torch raised at finite numbers: there is nothing to make finite
    assert all(origin.verified for origin in trace.origins) or refused


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_is_silent_on_what_is_harmless(control: Case) -> None:
    trace = traced(control)
    assert trace.clean
    assert trace.origins == ()
    assert trace.sinks == ()
    assert trace.steps == 8
