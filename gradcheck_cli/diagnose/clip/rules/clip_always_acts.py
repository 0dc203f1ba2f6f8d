"""# GC402 clip-always-acts

## What it detects

A `max_norm` of yours (`--max-norm`, or `clip` in the configuration) that clips more than half of the steps.

## Why it matters

Such a threshold no longer guards against spikes: it sets the length of most gradients. With SGD that is a lower
learning rate, one that changes with the norm; with Adam it takes away most of what the gradient's size could tell. It
can be wanted (normalised gradients train well), but then it should be a decision.

## How to fix

1. Take the value that `gradcheck recommend-clip` gives.
2. If the run trains well as it is, know that the learning rate and this value are tuned together: change both.

## How it decides

The share of the kept steps (warm-up, skipped and non-finite steps left out) whose gradient norm exceeds it is above
50 %. Only where a `max_norm` was given.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC402", "clip-always-acts", Severity.WARNING)
def check(advice: ClipAdvice, limits: Limits) -> Iterator[Outcome]:
    judged = advice.judged
    if judged and judged.effect == "normalises":
        instead = "" if advice.max_norm is None else f": max_norm={advice.max_norm:.3g}"
        yield check.finding(
            f"max_norm {judged.max_norm:g} clips {100 * judged.clip_rate:.3g} % of {advice.n} steps: it sets the "
            "length of most gradients",
            f"take the value recommended here{instead}, or lower the learning rate and leave clipping out",
            evidence={"max_norm": judged.max_norm, "clip_rate": judged.clip_rate},
        )
