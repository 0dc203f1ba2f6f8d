"""# GC403 clip-needed

## What it detects

A run whose gradient norms have spikes or a heavy tail, and that has no `max_norm` which acts on them.

## Why it matters

One step with a gradient many times the usual one can undo hundreds: it moves the weights far, and with Adam it spoils
the running averages for a thousand steps. Where such steps come, clipping is cheap insurance. It is for your
information: many models with such norms train well without.

## How to fix

1. Clip at the value given, and train a while with it: `gradcheck recommend-clip TARGET --verify`.
2. Look at the batches of the largest norms: mislabelled or broken samples make such steps, too (GC201 names them).

## How it decides

The verdict is `clip`: a kept step lies beyond median + 6 robust sigmas of the log norm, or the tail is heavy (the 95 %
interval of the generalised Pareto shape lies above 0); nothing is to be mended first; and no `max_norm` was given that
clips more than 0.1 % of the steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC403", "clip-needed", Severity.INFO)
def check(advice: ClipAdvice, limits: Limits) -> Iterator[Outcome]:
    guarded = advice.judged is not None and advice.judged.effect != "never-acts"
    if advice.verdict == "clip" and not guarded:
        yield check.finding(
            "; ".join(advice.reasons),
            f"clip_grad_norm_(model.parameters(), max_norm={advice.max_norm:.3g})",
            evidence={"max_norm": advice.max_norm, "largest_norm": float(advice.norms.max())},
        )
