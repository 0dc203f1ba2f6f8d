"""# GC505 zero-grad-inside-accumulation

## What it detects

A loop that accumulates gradients over micro-batches but removes them before each: only the last one reaches the step.

## Why it matters

The time for all micro-batches is spent, and all but one are thrown away. The batch is K times smaller than meant, and
if the loss is divided by K, so is the gradient.

## How to fix

1. Call `optimizer.zero_grad()` only where `optimizer.step()` is called, right after it.

## How it decides

In most steps, gradients were removed that came by the same lines as those that the step then used, while no parameter
had been changed in between, no step of any optimizer had used them, and the script put no gradients of its own in. So
two passes a step as in sharpness-aware minimisation, closures of L-BFGS, adversarial examples, and the gradients that a
generator's loss leaves in a discriminator are silent; so are losses that were not finite, which are GC516's business.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Group, Window, backwards_in, is_broken, loops_of, most
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Recording, Severity


@rule("GC505", "zero-grad-inside-accumulation", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        thrown = [groups for window in loop.windows if (groups := alike(window))]
        if thrown and most(thrown, loop.windows):
            number = sum(len(backwards_in(group)) for group in thrown[0])
            yield check.finding(
                f"{loop.name} steps after several backwards, but the gradients are removed before each:"
                f" {count(number, 'micro-batch') if number == 1 else f'{number} micro-batches'} of {number + 1} thrown"
                " away at every step",
                "call optimizer.zero_grad() only after optimizer.step()",
                location=thrown[0][0][0].location,
                evidence={"optimizer": loop.name, "thrown_away": number, "backwards": number + 1},
            )
            return


def alike(window: Window) -> list[Group]:
    """The groups thrown away that came by the same lines as what the step used, unless it used what it put together."""
    if window.edited:
        return []
    sites = {event.site for event in window.backwards}
    return [
        group
        for group in window.thrown
        if not is_broken(group) and all(event.site in sites for event in backwards_in(group))
    ]
