"""# GC804 lost-gradient

## What it detects

A layer that had a gradient when the baseline was written and has none now: cut off, frozen, or never called.

## Why it matters

It has stopped to learn, and nothing fails: the loss goes on falling by what the others learn. A `detach` for a
debugging session, a `torch.no_grad()` around a branch, a head that is not called any more are the usual ways.

## How to fix

1. Look for `.detach()`, `.data`, `.item()`, `torch.no_grad()` and integer casts between the layer and the loss, and
   for a call of the layer that is gone.
2. `requires_grad_(False)` is meant? Then write the baseline anew: `--write-baseline`.

## How it decides

In the baseline the layer's gradient was other than zero on so many recorded steps that chance could hardly leave it
at zero on as many as there are now (less than once in 1000 runs); now it is zero or None on all of them. Experts that
get a gradient now and then don't count. One finding for the outermost module of which every layer with parameters has
lost its gradient. Only against a baseline, for layers that both runs have.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.baseline import LayerMeasure
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import enclosing
from gradcheck_cli.records import Severity

BY_CHANCE = 0.001


@rule("GC804", "lost-gradient", Severity.ERROR)
def check(change: Change, limits: Limits) -> Iterator[Outcome]:
    lost = [now.name for then, now in change.layers() if has_lost(then, now)]
    mixed = {around for one in change.now.layers if one.name not in lost for around in enclosing(one.name)}
    groups: dict[str, list[str]] = {}
    for name in lost:
        whole = [around for around in enclosing(name) if around not in mixed]
        groups.setdefault(whole[0] if whole else name, []).append(name)
    for layer, names in groups.items():
        yield check.finding(
            f"{layer or 'the model'} had a gradient in the baseline and gets none any more",
            "look for .detach(), torch.no_grad() or a call that is gone between this and the loss; if it was frozen on"
            " purpose, --write-baseline",
            layer=layer,
            evidence={"layers": names},
        )


def has_lost(then: LayerMeasure, now: LayerMeasure) -> bool:
    """Whether the gradient is gone, and not only by chance on these few steps."""
    return now.rows > 0 and now.reached == 0 < then.reached and (1 - then.reached) ** now.rows < BY_CHANCE
