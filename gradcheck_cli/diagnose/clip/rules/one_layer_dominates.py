"""# GC404 one-layer-dominates

## What it detects

One layer that alone makes the global gradient norm, and so decides which steps are clipped.

## Why it matters

`clip_grad_norm_` shortens all gradients by one factor. Where a single layer decides it, all others are shortened for
what that one did. It is often the embedding or the last layer at initialisation, and passes; where it stays, clipping
per layer serves better.

## How to fix

1. If the run is young, measure again later (`--checkpoint`).
2. Clip that layer on its own: `clip_grad_norm_(model.layer.parameters(), max_norm=...)`, and the rest together; or
   use a per-tensor method (AdaGC, AGC), which the report replays.
3. See whether its initialisation or its learning rate is out of line with the others.

## How it decides

Its share of the squared global norm, median over the kept steps, is at least 95 %, and the model has at least four
layers with gradients. In healthy models the last layer makes 70 to 94 %.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC404", "one-layer-dominates", Severity.INFO)
def check(advice: ClipAdvice, limits: Limits) -> Iterator[Outcome]:
    if advice.dominant is not None:
        share = next(layer.share for layer in advice.layers if layer.name == advice.dominant)
        yield check.finding(
            f"it makes {100 * share:.3g} % of the squared gradient norm: what it does decides what is clipped",
            "clip it on its own and the rest together, or per tensor",
            layer=advice.dominant,
            evidence={"share": share, "regime": advice.regime},
        )
