"""# GC401 clip-never-acts

## What it detects

A `max_norm` of yours (`--max-norm`, or `clip` in the configuration) that clips fewer than one step in a thousand.

## Why it matters

A threshold far above every norm does nothing. It may be meant as a guard against rare spikes, which is fine; but a
value copied from a paper, for a model with other norms, only looks like one. It is for your information.

## How to fix

1. Nothing, if it is a guard: see in the report how far above the norms it stands.
2. Else take the value that `gradcheck recommend-clip` gives, or leave clipping out.

## How it decides

The share of the kept steps (warm-up, skipped and non-finite steps left out) whose gradient norm exceeds it is under
0.1 %. Only where a `max_norm` was given.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC401", "clip-never-acts", Severity.INFO)
def check(advice: ClipAdvice, limits: Limits) -> Iterator[Outcome]:
    judged = advice.judged
    if judged and judged.effect == "never-acts":
        largest = float(advice.norms.max())
        yield check.finding(
            f"max_norm {judged.max_norm:g} clips none of {advice.n} steps: the largest norm is {largest:.3g}"
            if largest <= judged.max_norm
            else f"max_norm {judged.max_norm:g} clips {100 * judged.clip_rate:.2g} % of {advice.n} steps",
            "keep it as a guard against spikes, or take the value recommended here",
            evidence={"max_norm": judged.max_norm, "clip_rate": judged.clip_rate, "largest_norm": largest},
        )
