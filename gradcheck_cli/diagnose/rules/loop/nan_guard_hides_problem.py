"""# GC516 nan-guard-hides-problem

## What it detects

A script that meets NaN or Inf and goes on: it throws the gradients of such a step away, or replaces what is not finite
in them.

## Why it matters

The cause stays: batches that always fail are never learnt from, an overflow comes more often as weights grow, and a
replaced NaN makes the step a random one in the elements around it. A GradScaler does it too, and on purpose, for fp16;
outside of it a guard hides what should be repaired.

## How to fix

1. `gradcheck nan-trace` names the operation that made the first such value, and its repair.
2. Keep the guard, but count what it skips, and stop when that is more than a few.

## How it decides

Replaced: `nan_to_num` was called on gradients, or in a hook during backward, and found elements that are not finite; or
sampled elements were not finite and then were. Skipped: gradients were removed without a step of any optimizer (a
GradScaler's skipped step is one), after a loss or a norm returned by `clip_grad_norm_` that was not finite. A script
that leaves `backward` out for such a loss cannot be told from one that evaluates, and is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, is_broken, loops_of
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Recording, Severity


@rule("GC516", "nan-guard-hides-problem", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if recording.audit is None or not loops:
        yield check.skip(NO_STEP)
        return
    replaced = [event for event in recording.audit.events if event.kind == "replace" and event.count > 0]
    skipped = list({id(group[0]): group for loop in loops for group in loop.thrown if is_broken(group)}.values())
    if replaced or skipped:
        first = replaced[0] if replaced else skipped[0][-1]
        said = [f"{count(len(replaced), 'time')} it replaced NaN or Inf in gradients"] if replaced else []
        said += [f"{count(len(skipped), 'step')} it left out"] if skipped else []
        yield check.finding(
            f"the script hides values that are not finite: {', '.join(said)}",
            "gradcheck nan-trace names the operation that makes them",
            location=first.location,
            evidence={"replaced": len(replaced), "skipped": len(skipped)},
        )
