"""# GC304 nonfinite-input

## What it detects

Batches that hold NaN or infinite elements, and the first such batch.

## Why it matters

One NaN in a batch makes the loss NaN, the gradients NaN and, after one update, the weights NaN. The data is the cause;
everything else that is reported follows from it.

## How to fix

1. Find the samples in the data set: `torch.isfinite(x).all()` on each, in the `Dataset` itself.
2. Drop them, or fill the gaps (mean, zero plus a mask); `torch.nan_to_num` hides the fault and keeps the run alive.
3. Look at the preprocessing: a division by a standard deviation of 0, the log of 0, a failed decoding, an overflow in
   fp16.
4. If -inf is meant as a mask, give it as a boolean mask to the attention instead.

## How it decides

Elements of the floating-point tensors in each batch were counted as non-finite on any step. The finding names the first
such step. Not evaluated without a recorded step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.wording import count, describe_step, locate_step
from gradcheck_cli.records import Recording, Severity


@rule("GC304", "nonfinite-input", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    series = recording.series
    if not recording.steps:
        yield check.skip("no step was recorded")
        return
    steps = np.flatnonzero(series.nonfinite_inputs > 0)
    if not len(steps):
        return
    first = int(steps[0])
    elements = int(series.nonfinite_inputs[first])
    where = f" ({recording.nonfinite_input})" if recording.nonfinite_input else ""
    more = f"; {len(steps)} of {recording.steps} steps have some" if len(steps) > 1 else ""
    yield check.finding(
        f"the batch of {describe_step(series, first)} holds {count(elements, 'non-finite element')}{where}{more}",
        "find those samples with torch.isfinite in the Dataset and drop or fill them; look for a division by a standard"
        " deviation of 0 or a log of 0 in the preprocessing",
        step=first,
        evidence={
            **locate_step(series, first),
            "elements": elements,
            "nonfinite_steps": [int(step) for step in steps],
            "where": recording.nonfinite_input,
        },
    )
