"""# GC507 unscale-twice

## What it detects

Gradients that are divided once too often: by the loss scale twice, by a loss scale that they were never multiplied by,
or by the number of micro-batches twice.

## Why it matters

Divided by 65536 once too often, gradients vanish and the weights stand still, or Adam's eps rules the update. Divided
by K twice, a step is K times too small. Libraries that divide for you make both easy: Accelerate's `backward` divides
the loss by its `gradient_accumulation_steps`.

## How to fix

1. One division for each: either `scaler.unscale_(optimizer)` or one by hand, and `scaler.scale(loss).backward()` before
   it. PyTorch's page "Automatic Mixed Precision examples", section "Working with unscaled gradients".
2. Divide the loss by K or leave it to the library.

## How it decides

In a step, one of these: `unscale_` ran twice, or was refused a second time; `unscale_` ran, and by hand the gradients
were multiplied by 1 / scale as well (within 1 %); `unscale_` ran, on its own or in `GradScaler.step`, though no loss
had passed through `GradScaler.scale`; in most steps of K micro-batches the autograd graph shows two divisions by K, or
one beside gradients that were multiplied by 1 / K by hand. Steps of which gradients were not looked at (after the first
200) do not count, nor losses of which the graph does not show how they were reduced.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose

from gradcheck_cli.audit import LoopEvent
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Loop, Window, is_scale, loops_of, most
from gradcheck_cli.records import Finding, Recording, Severity

SAME = 0.01


@rule("GC507", "unscale-twice", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        windows = [window for window in loop.windows if window.measured]
        by_scale = [(event, what) for window in windows for event, what in over_unscaled(window)]
        by_scale += [(event, "unscale_ was called a second time") for event in loop.rest if event.failed]
        by_number = [event for window in windows if (event := over_divided(window))]
        if by_scale:
            event, what = by_scale[0]
            yield describe(loop, event, what, f"by the loss scale, {event.scale:g}", len(by_scale))
            return
        if by_number and most(by_number, windows):
            number = max(len(window.repeated) for window in windows)
            what = f"the loss of each of {number} micro-batches is divided by {number}, and then once more"
            yield describe(loop, by_number[0], what, f"by the number of micro-batches, {number}", len(by_number))
            return


def describe(loop: Loop, event: LoopEvent, what: str, by: str, times: int) -> Finding:
    return check.finding(
        f"the gradients of {loop.name} are divided {by}, once too often: {what}",
        "keep one of the two divisions",
        location=event.location,
        evidence={"optimizer": loop.name, "what": what, "times": times},
    )


def over_unscaled(window: Window) -> Iterator[tuple[LoopEvent, str]]:
    """The division by the loss scale that was one too many, if there was one, and what it was."""
    divisions = [event for event in window.used if event.kind == "unscale"]
    ratios = [event.ratio for event in window.used if event.kind == "edit"]
    by_hand = any(isclose(ratio * event.scale, 1, rel_tol=SAME) for event in divisions for ratio in ratios)
    refused = [event for event in divisions if event.failed]
    losses = window.backwards
    if not divisions or not is_scale(divisions[0].scale):
        return
    if len(divisions) > 1:
        yield (refused or divisions[1:])[0], "unscale_ was called a second time"
    elif by_hand:
        yield divisions[0], "unscale_ was called, and the script divides them by hand as well"
    elif losses and all(e.reduction and not e.scaled for e in losses) and not window.edited and not window.carried:
        yield divisions[0], "no loss was multiplied by it: backward was not called on scaler.scale(loss)"


def over_divided(window: Window) -> LoopEvent | None:
    """The first of several micro-batches that were divided by their number twice."""
    losses = window.repeated
    number = len(losses)
    if number < 2:
        return None
    by_hand = any(e.kind == "edit" and isclose(e.ratio * number, 1, rel_tol=SAME) for e in window.used)
    if all(event.divisors.count(number) + by_hand > 1 for event in losses):
        return losses[0]
    return None
