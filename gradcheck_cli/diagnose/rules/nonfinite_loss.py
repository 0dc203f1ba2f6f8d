"""# GC301 nonfinite-loss

## What it detects

A loss that is NaN or infinite, and the first step and batch that gave one.

## Why it matters

Every gradient that comes of it is NaN, and one optimizer step with it makes every weight NaN, for good. No training
happens after that, though nothing fails.

## How to fix

1. If the batch holds NaN or Inf (GC304), clean the data.
2. If a parameter was not finite before (GC303), the cause lies in an earlier step.
3. If the loss rose before (GC203), lower the learning rate, warm it up, clip the gradient.
4. Otherwise look for log(0), division by zero, sqrt at 0, exp of large numbers, a softmax of a row that is all masked,
   a mean over nothing: use `log_softmax`, `cross_entropy` and `binary_cross_entropy_with_logits`, or add an epsilon.
5. In fp16, values above 65504 are infinite: keep the loss and softmax in fp32, or use bf16.

## How it decides

The loss of any step, the mean over its accumulation window, is not finite. The finding names the first such step. A
GradScaler can't help here, so it makes no difference. Not evaluated without a recorded step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.wording import describe_step, locate_step
from gradcheck_cli.records import Recording, Severity


@rule("GC301", "nonfinite-loss", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    series = recording.series
    if not recording.steps:
        yield check.skip("no step was recorded")
        return
    if not recording.run.sees_loss:
        yield check.skip("the script calls no backward, so its loss is not known")
        return
    steps = np.flatnonzero(~np.isfinite(series.loss))
    if not len(steps):
        return
    first = int(steps[0])
    bad_input = bool(series.nonfinite_inputs[first] > 0)
    value = "NaN" if np.isnan(series.loss[first]) else "infinite"
    more = f", and at {len(steps) - 1} more of {recording.steps} steps" if len(steps) > 1 else ""
    yield check.finding(
        f"the loss is {value} at {describe_step(series, first)}{more}"
        + ("; the batch itself holds non-finite values" if bad_input else ""),
        "clean the data: the batch holds NaN or Inf (see GC304)"
        if bad_input
        else "look for log(0), division by zero, exp of large numbers or a fully masked softmax in the forward pass;"
        " lower the learning rate if the loss rose before; in fp16 keep the loss in fp32",
        step=first,
        evidence={
            **locate_step(series, first),
            "value": value,
            "nonfinite_steps": len(steps),
            "steps": recording.steps,
            "nonfinite_inputs": int(series.nonfinite_inputs[first]),
        },
    )
