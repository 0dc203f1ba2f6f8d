"""# GC512 last-window-dropped

## What it detects

An accumulation whose last window, where the number of batches is no multiple of K, is thrown away, or is used although
its fewer losses are divided by K all the same.

## Why it matters

Thrown away, some batches of each epoch are computed for nothing, and without shuffling always the same. Divided by K,
the last step of each epoch is smaller than its gradient. Both are small matters in long epochs, which is why this is
information; with few batches in an epoch they are not.

## How to fix

1. Step at the end of an epoch, too: `if (i + 1) % K == 0 or i + 1 == len(loader)`.
2. Divide by the number of micro-batches that the window really has, or by its number of samples or tokens.
3. Or leave them out knowingly: `drop_last`, and a number of batches that K divides.

## How it decides

At least two thirds of the steps, and two of them, add up the same number K > 1 of backwards by the same lines. Dropped:
a group of fewer than K of those backwards whose gradients were removed, or after which the script ended, with no step.
A group whose loss or norm was not finite is GC516's business. Wrongly weighted: a step with fewer than K whose losses
the autograd graph shows divided by K. Not evaluated without an accumulation.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import (
    NO_STEP,
    Group,
    Loop,
    Window,
    backwards_in,
    is_broken,
    loops_of,
    usual_count,
)
from gradcheck_cli.records import Finding, Recording, Severity


@rule("GC512", "last-window-dropped", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        usual = usual_count(loop.windows)
        full = [window for window in loop.windows if len(window.repeated) == usual]
        if usual > 1 and len(full) > 1:
            dropped = [group for group in loop.thrown if is_short(group, full)]
            light = [window for window in loop.windows if is_light(window, usual)]
            if dropped or light:
                yield describe(loop, usual, dropped, light)
                return


def describe(loop: Loop, usual: int, dropped: list[Group], light: list[Window]) -> Finding:
    if dropped:
        number, first = len(backwards_in(dropped[0])), backwards_in(dropped[0])[0]
        what = f"the last {number} of them are thrown away when their number is no multiple of {usual}"
    else:
        number, first = len(light[0].repeated), light[0].repeated[0]
        what = f"the last window has {number}, and their losses are divided by {usual} all the same"
    return check.finding(
        f"{loop.name} steps on the sum over {usual} micro-batches; {what}",
        "step at the end of an epoch, too, and divide by the number of micro-batches that the window has",
        location=first.location,
        evidence={"optimizer": loop.name, "micro_batches": usual, "dropped": len(dropped), "light": len(light)},
    )


def is_short(group: Group, full: list[Window]) -> bool:
    """Whether a group has some of a window's micro-batches, but not all."""
    sites = {event.site for event in backwards_in(group)}
    usual = full[0].repeated
    return len(backwards_in(group)) < len(usual) and sites == {usual[0].site} and not is_broken(group)


def is_light(window: Window, usual: int) -> bool:
    """Whether a step added up fewer than usual, each divided by the usual number."""
    losses = window.repeated
    return 0 < len(losses) < usual and all(usual in one.divisors for one in losses) and not window.edited
