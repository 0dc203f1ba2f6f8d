"""# GC204 gradient-growth

## What it detects

Gradient norms that rise steadily, by more than a factor of ten over the run.

## Why it matters

Norms of a healthy run fall or level off within the first steps, and may rise by tens of percent later on. Growth
without end means that the network grows ever more sensitive: weights that blow up, logits that drift, a recurrent part
that becomes unstable. It often comes long before the loss shows anything.

## How to fix

1. Lower the learning rate, or let it decay.
2. Clip the gradient at the norm of the early, stable part of the run.
3. Use weight decay, and normalise what grows (QK-norm, logit soft-capping, LayerNorm).
4. See which layers grow: their weights (GC306), or their gradients in the layer table.

## How it decides

On log10 of the norm before clipping, over steps that are finite, not zero and not skipped by a GradScaler: the
Theil-Sen slope (Sen 1968) times the length exceeds 1 decade, and the Mann-Kendall test for a monotone trend gives p <
0.01. Long runs are first condensed to 500 medians of consecutive steps. Being a median of slopes, it ignores spikes,
and a rise within the first few steps that then stays, as after a zero initialisation. A network that begins on a
plateau and then learns is healthy: its norm grows because the loss falls ever faster. That is taken for the reason
where the loss falls by the Mann-Kendall test (p < 0.01) in the second half of those steps, and at least twice as far as
in the first, by medians of quarters. Where parameters join the training for good, as when a backbone is released, the
norm is one of more parameters: each stretch between is judged for itself, and the longest that grows is reported. Not
evaluated with fewer than 20 such steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.joins import split_at_joins
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import condense, mann_kendall, median, theil_sen
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Finding, Floats, Recording, Severity

FEWEST_STEPS = 20
DECADES = 1.0
SIGNIFICANCE = 0.01
LATER = 2.0


@rule("GC204", "gradient-growth", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    series = recording.series
    steps = np.flatnonzero(np.isfinite(series.grad_norm) & (series.grad_norm > 0) & ~series.skipped)
    parts = sorted(split_at_joins(recording, steps), key=len, reverse=True)
    longest = len(parts[0]) if parts else 0
    if longest < FEWEST_STEPS:
        yield check.skip(f"{count(longest, 'step')} with a finite gradient norm, {FEWEST_STEPS} are needed")
    long = [part for part in parts if len(part) >= FEWEST_STEPS and not leaves_plateau(series.loss[part])]
    growing = (judge(series.grad_norm[part]) for part in long)
    yield from [finding for finding in growing if finding is not None][:1]


def leaves_plateau(losses: Floats) -> bool:
    """Whether (n,) losses begin to fall late: then gradients are small at first, and grow because it is learning."""
    known = condense(losses[np.isfinite(losses)])
    if len(known) < FEWEST_STEPS:
        return False
    quarters = [median(part) for part in np.array_split(known, 4)]
    late = quarters[2] - quarters[3]
    trend = mann_kendall(known[len(known) // 2 :])
    return trend.s < 0 and trend.p < SIGNIFICANCE and late > LATER * max(quarters[0] - quarters[1], 0.0)


def judge(norms: Floats) -> Finding | None:
    """The finding on (n,) norms that grow."""
    logs = condense(np.log10(norms))
    decades = theil_sen(logs) * (len(logs) - 1)
    trend = mann_kendall(logs)
    if not decades > DECADES or not trend.p < SIGNIFICANCE:
        return None
    first, last = median(norms[:3]), median(norms[-3:])
    return check.finding(
        f"gradient norms grow steadily by {decades:.2f} decades over {len(norms)} steps, from {first:.4g} to {last:.4g}"
        f" (p = {trend.p:.2g})",
        f"lower the learning rate or let it decay; clip with clip_grad_norm_(parameters, {first:.2g}); use weight decay"
        " and normalise what grows",
        evidence={
            "decades": decades,
            "limit": DECADES,
            "trend_p": trend.p,
            "significance": SIGNIFICANCE,
            "first": first,
            "last": last,
            "steps": len(norms),
        },
    )
