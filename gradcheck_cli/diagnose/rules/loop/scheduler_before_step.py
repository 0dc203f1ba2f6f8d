"""# GC511 scheduler-before-step

## What it detects

A learning rate scheduler that steps before the optimizer does, or once a micro-batch though the optimizer steps only
after several.

## Why it matters

Before the optimizer: the first value of the schedule is skipped, and every other comes a step or an epoch early. Once a
micro-batch: the schedule runs out K times too early, and with a decay to zero most of the training has no learning rate
left.

## How to fix

1. `optimizer.step()`, then `scheduler.step()`. PyTorch's page "torch.optim", section "How to adjust learning rate".
2. With accumulation, step the scheduler where the optimizer steps, and count its steps so.

## How it decides

By the order of calls. Before: the scheduler stepped before the optimizer's first step (one that a GradScaler skipped
counts), by lines that step it later on, too. A loop of its own that winds the schedule on for a resumed run is no such
thing. Once a micro-batch: between two steps of the optimizer, in most of them, the scheduler made as many steps, more
than one, as there were backwards. Each scheduler is counted on its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.audit import LoopEvent
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Loop, loops_of, most
from gradcheck_cli.records import Finding, Recording, Severity


@rule("GC511", "scheduler-before-step", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        for number in sorted({event.scheduler for event in schedules(loop)}):
            if found := too_often(loop, number) or too_early(loop, number):
                yield found
                return


def schedules(loop: Loop) -> list[LoopEvent]:
    """All steps of schedulers."""
    events = [event for window in loop.windows for event in window.events]
    return [event for event in (*events, *loop.rest) if event.kind == "scheduler"]


def too_often(loop: Loop, number: int) -> Finding | None:
    """Once a micro-batch."""
    often = []
    for window in loop.windows:
        calls = [event for event in window.events if event.scheduler == number]
        if len(calls) > 1 and len(calls) in (len(window.repeated), len(window.repeated) - 1):
            often.append(calls)
    # The window of the first step lacks what comes after the last micro-batch of the one before.
    if not often or not most(often, loop.windows) or max(map(len, often)) < 2:
        return None
    calls = often[-1]
    return check.finding(
        f"the scheduler steps {len(calls)} times for each step of {loop.name}, once a micro-batch: the schedule runs"
        f" out {len(calls)} times too early",
        "step the scheduler where the optimizer steps",
        location=calls[0].location,
        evidence={"optimizer": loop.name, "what": "once a micro-batch", "scheduler_steps": len(calls)},
    )


def too_early(loop: Loop, number: int) -> Finding | None:
    """Before the optimizer's first step."""
    calls = [event for event in schedules(loop) if event.scheduler == number]
    first = [event for event in loop.windows[0].events if event.scheduler == number]
    again = {event.site for event in calls[len(first) :]}
    early = [event for event in first if event.site in again]
    if not early:
        return None
    return check.finding(
        f"the scheduler steps before {loop.name} does: the first value of the schedule is never used",
        "call optimizer.step() first, then scheduler.step()",
        location=early[0].location,
        evidence={"optimizer": loop.name, "what": "before the first step", "scheduler_steps": len(calls)},
    )
