"""nan-trace on several ranks: all stop at the same step, and the one on which it began says where."""

from __future__ import annotations

from typing import Any

import pytest

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.errors import TargetError
from gradcheck_cli.pipeline.nan_tracing import nan_trace
from gradcheck_cli.records import Report
from gradcheck_cli.tape import NanTrace
from tests.distributed.conftest import Pool

TARGET = "tests.distributed.targets:with_bad_sample"
STRATEGIES = ["ddp", "fsdp2"]
strategies = pytest.mark.parametrize("strategy", STRATEGIES)


def traced(group: Group, wanted: Settings) -> Report:
    return nan_trace(TARGET, wanted, group=group)[0]


def settings(strategy: str = "ddp", kind: str = "slope", **others: Any) -> Settings:
    arguments = {"kind": kind, **others.pop("set", {})}
    return Settings(**{"steps": 12, "device": "cpu", "strategy": strategy, "set": arguments, **others})


def trace_of(reports: list[Report]) -> NanTrace:
    """The trace, which all ranks have."""
    first = reports[0].trace
    assert first is not None
    assert all(one.trace is not None and one.trace.step == first.step for one in reports)
    assert all(one.exit_code == reports[0].exit_code for one in reports)
    return first


def summary(trace: NanTrace) -> tuple[Any, ...]:
    """What does not depend on who ran the step."""
    return tuple((o.op, o.phase, o.source, o.samples, o.verified, o.cause, o.frame, o.module) for o in trace.origins)


@strategies
@pytest.mark.parametrize(("kind", "place"), [("slope", "aten::sqrt"), ("data", "batch:[0]")])
def test_the_rank_with_the_bad_sample_says_where(ranks: Pool, strategy: str, kind: str, place: str) -> None:
    """Sample 38 is the third of batch 9: with two ranks in turn, step 4 on rank 1. One process says the same."""
    reports = ranks(2, traced, settings(strategy, kind))
    trace = trace_of(reports)
    assert (trace.step, trace.rank) == (4, 1)
    (origin,) = trace.origins
    assert place in (origin.op, origin.source)
    assert origin.samples == (2,)
    assert origin.verified
    assert any("rank 1 of 2" in note for note in reports[0].run.notes)
    alone = traced(ALONE, settings(kind=kind)).trace
    assert alone is not None
    assert (alone.step, summary(alone)) == (9, summary(trace))


@strategies
def test_what_the_update_makes_bad_is_found_by_all_together(ranks: Pool, strategy: str) -> None:
    trace = trace_of(ranks(2, traced, settings(strategy, "update")))
    assert (trace.step, trace.rank) == (0, 0)
    (origin,) = trace.origins
    assert origin.phase == "optimizer"
    assert origin.cause == "adam-eps-zero"
    assert origin.verified
    assert "ranks 0, 1" in trace.notes[0]


@strategies
def test_four_ranks_with_accumulation_in_bf16(ranks: Pool, strategy: str) -> None:
    """Batch 9 of 24: with four ranks in turn it is rank 1's third, the first micro-batch of step 1."""
    trace = trace_of(ranks(4, traced, settings(strategy, accumulate=2, precision="bf16")))
    assert (trace.step, trace.rank) == (1, 1)
    assert [(origin.samples, origin.micro_batch) for origin in trace.origins] == [((2,), 0)]


@strategies
def test_several_ranks_may_begin_it(ranks: Pool, strategy: str) -> None:
    trace = trace_of(ranks(2, traced, settings(strategy, set={"index": [38, 34]})))
    assert (trace.step, trace.rank) == (4, 0)
    assert "ranks 0, 1" in trace.notes[-1]


@strategies
def test_a_clean_run_is_clean(ranks: Pool, strategy: str) -> None:
    reports = ranks(2, traced, settings(strategy, "none", steps=6))
    assert trace_of(reports).clean
    assert reports[0].exit_code == 0
    assert len(reports[0].series) == 6


def test_one_epoch_is_the_same_on_all_ranks(ranks: Pool) -> None:
    """24 batches are 6 for each of 4 ranks."""
    reports = ranks(4, traced, settings("ddp", "none", steps=100, one_epoch=True))
    assert trace_of(reports).steps == 6


def refused(group: Group) -> str:
    with pytest.raises(TargetError) as caught:
        nan_trace("tests.distributed.targets:split", Settings(steps=6, device="cpu"), group=group)
    return caught.value.message


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_that_split_tensors_are_refused_in_words(ranks: Pool, size: int) -> None:
    assert all("split tensors" in message for message in ranks(size, refused))
