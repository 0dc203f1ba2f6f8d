"""# GC801 depth-slope-shift

## What it detects

A gradient that shrinks or grows with depth otherwise than it did when the baseline was written.

## Why it matters

How fast the gradient changes from layer to layer is set by initialisation, activation functions, normalisation and
residual connections. If the slope of a stack moves by a decade, one of these has changed, whether anybody meant it or
not: the first layers now learn ten times slower, or faster, beside the last ones. The loss shows that late, if ever.

## How to fix

1. Look at what was changed in the layers named: their initialisation, a normalisation that was removed or moved,
   another activation function, a residual connection that is gone.
2. If the change is meant, write the baseline anew: `--write-baseline`.

## How it decides

The depth slope D of GC101, for each group of like layers that both runs have, has moved by more than 1 decade (the
tolerance `depth_slope`) away from zero. It must also have moved by more than its noise: by four robust standard
deviations from probed step to probed step, of both runs together, and by a third of the larger slope, since a slope
of many decades varies from seed to seed in proportion. Only against a baseline. A slope that came nearer to zero is
told as an improvement.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.baseline import SlopeMeasure
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC801", "depth-slope-shift", Severity.ERROR)
def check(change: Change, limits: Limits) -> Iterator[Outcome]:
    for then, now in change.slopes():
        limit = change.slope_limit(then, now)
        if not abs(now.decades - then.decades) > limit or has_flattened(then, now):
            continue
        yield check.finding(
            f"the gradient now {describe(now)} from {now.last_layer} to {now.first_layer}, in the baseline it"
            f" {describe(then, past=True)}",
            "look at what has changed in these layers: initialisation, normalisation, activation functions, residual"
            " connections; if it is meant, --write-baseline",
            layer=now.group,
            evidence={
                "group": now.group,
                "first_layer": now.first_layer,
                "last_layer": now.last_layer,
                "depth_slope_decades": now.decades,
                "baseline_depth_slope_decades": then.decades,
                "limit": limit,
            },
        )


def has_flattened(then: SlopeMeasure, now: SlopeMeasure) -> bool:
    """Whether the slope came nearer to zero, on the same side."""
    return abs(now.decades) < abs(then.decades) and (now.decades * then.decades > 0 or abs(now.decades) < 1)


def describe(slope: SlopeMeasure, past: bool = False) -> str:
    """Shrinks by 1.2 decades."""
    verb = ("shrank" if past else "shrinks") if slope.decades > 0 else ("grew" if past else "grows")
    return f"{verb} by {abs(slope.decades):.1f} decades"
