"""# GC305 loss-scale-collapse

## What it detects

A GradScaler that goes on skipping steps after the start, or whose scale falls below 1.

## Why it matters

`torch.amp.GradScaler` multiplies the loss so that small fp16 gradients survive, and skips a step and halves the scale
when some overflow. It begins at 65536 and finds its level within a few steps; after that it doubles about every 2000
steps, and one skip follows. Steps that are skipped all the time train nothing, and a scale below 1 means that gradients
overflow even unscaled, or are NaN for a reason that no scale can mend (Micikevicius et al., "Mixed Precision Training",
2018).

## How to fix

1. Use bf16 where the hardware has it: it has the range of fp32 and needs no scaler.
2. See whether the loss or the gradients are NaN in fp32 as well (GC301, GC302): then it is no matter of precision.
3. Keep in fp32 what overflows: the loss, softmax and logits, norms, sums over long axes.
4. Lower the learning rate or clip, after `scaler.unscale_(optimizer)`.

## How it decides

For runs with a GradScaler: it skipped more than a quarter of the steps after the first ten (at least four), or its
scale was below 1 at any step. With fewer than 14 steps the share is not evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Recording, Severity

SETTLING_STEPS = 10
FEWEST_STEPS = 4
MOST_SKIPPED = 0.25
LOWEST_SCALE = 1.0


@rule("GC305", "loss-scale-collapse", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if not recording.run.uses_scaler:
        return
    series = recording.series
    later = series.skipped[SETTLING_STEPS:]
    enough = len(later) >= FEWEST_STEPS
    skipped = int(later.sum())
    low = np.flatnonzero(series.loss_scale < LOWEST_SCALE)
    too_many = enough and skipped > MOST_SKIPPED * len(later)
    if not enough and not len(low):
        yield check.skip(f"{count(len(series), 'step')}, {SETTLING_STEPS + FEWEST_STEPS} are needed")
    if not too_many and not len(low):
        return
    scales = series.loss_scale[np.isfinite(series.loss_scale)]
    reasons = [f"skipped {skipped} of the {len(later)} steps after the first {SETTLING_STEPS}"] if too_many else []
    if len(low):
        lowest = f"{float(scales.min()):.3g}, below {LOWEST_SCALE:.0f} from step {int(low[0])} on"
        reasons.append(f"let its scale fall to {lowest}")
    yield check.finding(
        f"the GradScaler {' and '.join(reasons)}",
        "use bf16 instead of fp16; see whether the loss or the gradients are NaN in fp32 too; keep the loss and softmax"
        " in fp32; lower the learning rate",
        step=int(low[0]) if len(low) else None,
        evidence={
            "skipped": skipped,
            "steps": len(later),
            "settling_steps": SETTLING_STEPS,
            "most_skipped": MOST_SKIPPED,
            "smallest_scale": float(scales.min()) if len(scales) else None,
            "lowest_scale": LOWEST_SCALE,
        },
    )
