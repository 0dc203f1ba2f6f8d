"""# GC504 missing-zero-grad

## What it detects

Steps whose gradients still contain those of earlier steps, because nothing removes them in between.

## Why it matters

`backward` adds to `.grad`. Without `zero_grad` each step uses the sum of all gradients since the start: a momentum that
never decays, with a learning rate that grows step by step. It may converge for a while and then blows up.

## How to fix

1. `optimizer.zero_grad()` once a step: before the first backward, or after `optimizer.step()`. PyTorch's recipe
   "Zeroing out gradients in PyTorch".
2. With several optimizers or models, for each: `model.zero_grad()` reaches only what is in that model.

## How it decides

By what the gradients are. A sample of them is looked at before each backward and step; whatever removes them, whether
`zero_grad` of the optimizer or of the model, None, or zeros written by hand, counts. In most steps after the first, a
backward added to gradients that the step before had used and nothing removed. Gradients that another loss left there,
as the generator's does in a discriminator, do no harm as long as they are removed before the next step. Steps of which
gradients were not looked at (after the first 200) do not count.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, loops_of, most
from gradcheck_cli.records import Recording, Severity


@rule("GC504", "missing-zero-grad", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        later = [window for window in loop.windows[1:] if window.measured]
        carried = [window for window in later if window.carried and window.backwards]
        if carried and most(carried, later):
            yield check.finding(
                f"the gradients of {loop.name} are not removed between its steps: {len(carried)} of {len(later)} steps"
                " used those of earlier steps again",
                "call optimizer.zero_grad() once a step, before the first backward or after optimizer.step()",
                location=carried[0].backwards[0].location,
                evidence={"optimizer": loop.name, "steps_with_old_gradients": len(carried), "steps": len(later)},
            )
            return
