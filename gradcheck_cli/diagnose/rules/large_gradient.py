"""# GC107 large-gradient

## What it detects

A global gradient norm above a fixed limit, 100 unless `--large` says otherwise.

## Why it matters

Large gradients are the classic sign of explosion (Pascanu et al., "On the difficulty of training recurrent neural
networks", 2013). But the norm moves with the loss: a sum over the batch instead of a mean, or a loss in other units,
multiplies it without making training any worse. Of 26 healthy networks, a fixed range of norms accused ten. So this is
for your information; GC102, GC201 and GC204 judge by comparison.

## How to fix

1. Nothing, if the run is stable and no other rule complains. With Adam and its kin the scale of the gradient cancels.
2. Take the mean of the loss over the batch and its elements, not the sum.
3. Standardise the inputs and the regression targets.
4. With SGD, clip (`clip_grad_norm_`) near the typical norm of this run, or lower the learning rate.

## How it decides

The global norm before clipping, on steps where it is finite and that no GradScaler skipped, exceeds the limit at
least once. The finding names the worst step. Not evaluated without such a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.diagnose.wording import describe_step, locate_step
from gradcheck_cli.records import Recording, Severity


@rule("GC107", "large-gradient", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    series = recording.series
    usable = np.isfinite(series.grad_norm) & ~series.skipped
    if not usable.any():
        yield check.skip("no step with a finite gradient norm was recorded")
        return
    norms = np.where(usable, series.grad_norm, 0.0)
    above = int((norms > limits.large).sum())
    if not above:
        return
    worst = int(norms.argmax())
    typical = median(norms[usable])
    yield check.finding(
        f"the global gradient norm is above {limits.large:.4g} on {above} of {int(usable.sum())} steps; the largest is"
        f" {norms[worst]:.4g} at {describe_step(series, worst)}, the median {typical:.4g}",
        "nothing to do if training is stable: the norm moves with the scale of the loss; otherwise take the mean of"
        " the loss and not its sum, standardise inputs and targets, clip near the median norm, lower the learning rate",
        step=worst,
        evidence={
            **locate_step(series, worst),
            "grad_norm": float(norms[worst]),
            "median": typical,
            "limit": limits.large,
            "steps_above": above,
            "steps": int(usable.sum()),
        },
    )
