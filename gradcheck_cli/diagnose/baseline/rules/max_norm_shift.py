"""# GC805 max-norm-shift

## What it detects

A recommended max_norm that has left the interval it had when the baseline was written.

## Why it matters

A max_norm is a number somewhere in a training script. If the gradient norms of the run have moved (another loss
scale, batch size, initialisation or model), the old number clips everything or nothing, and nobody notices.

## How to fix

1. Look at what changed the size of the gradients: the loss's reduction, its weights, the batch size, initialisation.
2. If the change is meant, train with the new value, and write the baseline anew: `--write-baseline`.

## How it decides

The 95 % intervals of both runs' max_norm do not overlap, and their nearer ends are more than a factor of 1.5 apart
(the tolerance `max_norm`). An interval is about the steps of its own run; another seed trains another network, whose
percentile lies elsewhere: over ten seeds, the intervals of the sample models overlapped or were at most a factor of
1.08 apart. Without an interval, as for a percentile with too few effective steps, the value stands for it. Only
against a baseline, by recommend-clip, and only where both runs give a max_norm.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.baseline import NormMeasure
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC805", "max-norm-shift", Severity.ERROR)
def check(change: Change, limits: Limits) -> Iterator[Outcome]:
    then, now = change.then.clipping, change.now.clipping
    if then is None or now is None:
        return
    (old_low, old_high), (low, high) = ends(then), ends(now)
    apart = max(low / old_high, old_low / high) if min(old_high, high) > 0 else 0.0
    if apart > change.tolerances.max_norm:
        yield check.finding(
            f"the recommended max_norm is {now.max_norm:.3g} (95 % interval {low:.3g} to {high:.3g}), in the baseline"
            f" it was {then.max_norm:.3g} ({old_low:.3g} to {old_high:.3g})",
            "look at what changed the size of the gradients: the loss, the batch size, the initialisation; if it is"
            " meant, train with the new value and --write-baseline",
            evidence={
                "max_norm": now.max_norm,
                "interval": [low, high],
                "baseline_max_norm": then.max_norm,
                "baseline_interval": [old_low, old_high],
                "tolerance": change.tolerances.max_norm,
            },
        )


def ends(norm: NormMeasure) -> tuple[float, float]:
    """Both ends of the interval; the value twice, where there is none."""
    return (
        norm.max_norm if norm.low is None else norm.low,
        norm.max_norm if norm.high is None else norm.high,
    )
