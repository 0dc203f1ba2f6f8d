"""# GC508 clip-each-micro-batch

## What it detects

Clipping after every micro-batch of an accumulation, and not once for the sum: partial sums are clipped.

## Why it matters

What was added before is cut down again with each later micro-batch, so that the last ones weigh more than the first,
and the final norm may exceed or undercut what clipping the whole gradient would give. The direction of the step
changes.

## How to fix

1. Clip once, after the last backward and before `optimizer.step`. PyTorch's page "Automatic Mixed Precision examples",
   section "Gradient accumulation", has the loop.
2. To bound each sample's influence, as in differentially private SGD (Abadi et al., 2016), clip each gradient on its
   own and add up copies.

## How it decides

In most steps with more than one backward by the same lines, a clip comes between the first and the last of them, with
no `zero_grad` between. A clip at infinity only measures, and is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.audit import LoopEvent
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Window, clips_in, loops_of, most
from gradcheck_cli.records import Recording, Severity


@rule("GC508", "clip-each-micro-batch", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        partial = [clips for window in loop.windows if (clips := partial_clips(window))]
        if partial and most(partial, loop.windows):
            yield check.finding(
                f"{loop.name} steps on a sum over micro-batches that is clipped while it is added up, {len(partial[0])}"
                " times before the last of them",
                "clip once, after the last backward and before optimizer.step",
                location=partial[0][0].location,
                evidence={"optimizer": loop.name, "partial_clips": len(partial[0]), "steps": len(partial)},
            )
            return


def partial_clips(window: Window) -> list[LoopEvent]:
    """The clips between the first and the last micro-batch."""
    repeated = window.repeated
    if len(repeated) < 2 or window.carried:
        return []
    first = window.used.index(repeated[0])
    last = len(window.used) - 1 - window.used[::-1].index(repeated[-1])
    return clips_in(window.used[first:last])
