"""# GC203 loss-divergence

## What it detects

A loss that ends at more than three times its start and is still rising, or became NaN or infinite on the way up.

## Why it matters

The run is lost from here on: the weights leave the region where the gradient means anything, and the loss seldom
comes back by itself. Gradient descent diverges where the learning rate exceeds 2 / sharpness (Cohen et al., "Gradient
Descent on Neural Networks Typically Occurs at the Edge of Stability", 2021).

## How to fix

1. Lower the learning rate by 3 to 10 times.
2. Warm it up over the first hundreds of steps.
3. Clip the gradient with `clip_grad_norm_`, at about the norm of the first steps.
4. Look for a loss with the wrong sign, targets that are not normalised, and initial weights that are too large.

## How it decides

Start is the median of the first three losses, end that of the last three before the first non-finite one. It fires
where end > start + 2 |start| (three times the start, for positive losses) and either the second half rises by a
Mann-Kendall test (p < 0.05) or the next loss was not finite. For a loss that changes its sign, the largest |loss| of
the first half takes the place of |start|, for a start near zero says nothing about scale. Not evaluated with fewer than
10 finite losses, or 4 where a non-finite one follows, nor for a loss that starts at exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import condense, mann_kendall, median
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Floats, Recording, Severity

FEWEST_STEPS = 10
FEWEST_BEFORE_NONFINITE = 4
RISE = 2.0
SIGNIFICANCE = 0.05


@rule("GC203", "loss-divergence", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    broken = np.flatnonzero(~np.isfinite(recording.series.loss))
    losses = recording.series.loss[: broken[0]] if len(broken) else recording.series.loss
    fewest = FEWEST_BEFORE_NONFINITE if len(broken) else FEWEST_STEPS
    if len(losses) < fewest:
        until = " before the first non-finite one" if len(broken) else ""
        yield check.skip(f"{count(len(losses), 'step')} with a finite loss{until}, {fewest} are needed")
        return
    start, end = median(losses[:3]), median(losses[-3:])
    if start == 0:
        yield check.skip("the loss starts at 0, so there is no scale to compare its rise with")
        return
    limit = start + RISE * size_at_start(losses, start)
    trend = mann_kendall(condense(losses[len(losses) // 2 :]))
    rising = trend.s > 0 and trend.p < SIGNIFICANCE
    if not end > limit or not (rising or len(broken)):
        return
    after = f" and was not finite at step {broken[0]}" if len(broken) else " and is still rising"
    yield check.finding(
        f"the loss rose from {start:.4g} to {end:.4g} over {len(losses)} steps{after}",
        "lower the learning rate by 3 to 10 times; warm it up; clip the gradient; check the sign and scale of the loss"
        " and the initial weights",
        step=int(broken[0]) if len(broken) else len(losses) - 1,
        evidence={
            "start": start,
            "end": end,
            "limit": limit,
            "steps": len(losses),
            "trend_p": trend.p,
            "significance": SIGNIFICANCE,
            "became_nonfinite": bool(len(broken)),
        },
    )


def size_at_start(losses: Floats, start: float) -> float:
    """What the rise is compared with: |start|, or the largest |loss| of the first half if the sign changes."""
    if losses.min() < 0 < losses.max():
        return float(np.abs(losses[: len(losses) // 2]).max())
    return abs(start)
