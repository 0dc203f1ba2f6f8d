"""# GC803 activation-shift

## What it detects

A function whose dead units, or whose saturated elements, are many more than when the baseline was written.

## Why it matters

Dead ReLUs and saturated sigmoids pass no gradient. Each rule on them (GC603, GC602) has a threshold at which even
healthy models are left alone; a layer that goes from 5 % dead to 60 % has changed long before it gets there.

## How to fix

1. Look at what was changed before the function: initialisation, biases, normalisation, the scale of the data, the
   learning rate.
2. If the change is meant, write the baseline anew: `--write-baseline`.

## How it decides

The share of dead units (GC603) or of saturated elements (GC602) is up by more than 20 points (the tolerance `share`),
and by more than four standard deviations of both runs together: of a binomial count of the units, or of the saturated
share from probed step to probed step. Functions are matched by the layer before them and their kind. Dead units are
compared where both runs saw at least 128 examples. Only against a baseline.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.baseline import ShareMeasure
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import pattern
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Severity

Pair = tuple[ShareMeasure, ShareMeasure]
UNITS = {"dead": "units", "saturated": "elements"}


@rule("GC803", "activation-shift", Severity.ERROR)
def check(change: Change, limits: Limits) -> Iterator[Outcome]:
    groups: dict[str, list[Pair]] = {}
    for then, now in change.shares():
        if now.share - then.share > change.share_limit(then, now):
            groups.setdefault(pattern(now.layer), []).append((then, now))
    for layers, pairs in groups.items():
        worst = max(pairs, key=lambda pair: pair[1].share - pair[0].share)
        yield check.finding(
            describe(*worst, others=len(pairs) - 1),
            "look at what has changed before it: initialisation, biases, normalisation, the scale of the data, the"
            " learning rate; if it is meant, --write-baseline",
            layer=(layers if len(pairs) > 1 else worst[1].layer) or None,
            evidence={
                "layers": [now.layer for _, now in pairs],
                "functions": [f"{now.what} {now.function}" for _, now in pairs],
                "shares": [now.share for _, now in pairs],
                "baseline_shares": [then.share for then, _ in pairs],
                "limit": change.share_limit(*worst),
            },
        )


def describe(then: ShareMeasure, now: ShareMeasure, others: int) -> str:
    """How many more are dead or saturated."""
    like = f", and more at {count(others, 'place')} like it" if others else ""
    return (
        f"{now.share:.0%} of the {UNITS[now.what]} of the {now.function} behind {now.layer or 'the input'} are"
        f" {now.what}, in the baseline {then.share:.0%} were{like}"
    )
