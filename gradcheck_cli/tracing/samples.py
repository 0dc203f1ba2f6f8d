"""Which samples of a batch do it alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.drive.batches import batch_size, take
from gradcheck_cli.observe.nan.held import HeldBatch, HeldStep
from gradcheck_cli.tape import NanOrigin, Tape
from gradcheck_cli.tracing.fault import Fault
from gradcheck_cli.tracing.session import NO_REPAIRS, trace

MOST_SAMPLES = 16
MOST_SECONDS = 20.0


def find_samples(fault: Fault, tape: Tape, origin: NanOrigin) -> NanOrigin:
    """The origin with the samples that lead to it when the step is run on each of them alone.

    Tried are those that its bad rows point at, or all of a small batch.
    """
    held = fault.step.batches[min(origin.micro_batch, len(fault.step.batches) - 1)]
    size = batch_size(held.batch.data)
    if size < 2:
        return replace(origin, batch_size=size)
    candidates = rows_of(tape, origin, size) or list(range(size if size <= MOST_SAMPLES else 0))
    deadline = perf_counter() + MOST_SECONDS
    alone: list[bool] = []
    while len(alone) < min(len(candidates), MOST_SAMPLES) and perf_counter() < deadline:
        alone.append(does_it_alone(fault, held, origin, candidates[len(alone)]))
    found = [row for row, does in zip(candidates, alone, strict=False) if does]
    return replace(origin, batch_size=size, samples=tuple(found), samples_left=len(candidates) - len(alone))


def rows_of(tape: Tape, origin: NanOrigin, size: int) -> list[int]:
    """The samples that the bad rows of the origin, or of the field of the batch, belong to."""
    states = list(tape.operations[origin.operation].outputs) if origin.operation >= 0 else []
    states += [o.state for op in tape.operations for o in op.inputs if o.source and o.source == origin.source]
    for state in states:
        if state.bad_rows and state.shape and state.shape[0] % size == 0:
            return sorted({row // (state.shape[0] // size) for row in state.bad_rows})
    return []


def does_it_alone(fault: Fault, held: HeldBatch, origin: NanOrigin, row: int) -> bool:
    """Whether the step on this sample alone fails at the same place."""

    def alone(data: Any) -> Any:
        return take(data, [row])

    batch = replace(held.batch, data=alone(held.batch.data))
    step = HeldStep(fault.step.number, [HeldBatch(batch, held.random)])
    tape = trace(fault.session, step, fault.before, NO_REPAIRS)
    return any(is_same(find_origin(tape, sink), origin) for sink in first_of_each(tape))


def first_of_each(tape: Tape) -> Iterator[Any]:
    """The first sink of each kind."""
    seen: set[str] = set()
    for sink in tape.sinks:
        if sink.what not in seen:
            seen.add(sink.what)
            yield sink


def is_same(found: NanOrigin, origin: NanOrigin) -> bool:
    """Whether two origins are the same operation of the source."""

    def place(one: NanOrigin) -> Sequence[Any]:
        return one.phase, one.op, one.source, one.module, one.frame and one.frame.location

    return place(found) == place(replace(origin, frame=found.frame if origin.operation < 0 else origin.frame))
