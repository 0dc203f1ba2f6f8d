"""# GC802 gradient-shift

## What it detects

A layer whose gradient is ten times larger or smaller, beside the other layers, than when the baseline was written.

## Why it matters

One learning rate serves all layers. If a layer's gradient moves by a decade beside the others, that layer learns at
another pace (under Adam: with another share in clipping and weight decay, and nearer to its eps). Such a shift comes
of another initialisation, a scaled branch, a normalisation that is gone, or a path to the loss that was cut or added.

## How to fix

1. Look at what was changed in the layer and right behind it: initialisation, scale, normalisation, `detach`.
2. If the change is meant, write the baseline anew: `--write-baseline`.

## How it decides

A layer's gradient RMS over the median of all layers' on the same step, median over the recorded steps, has moved by
more than 1 decade (the tolerance `gradient`), up or down. It must also have moved by more than its noise: by four
robust standard deviations from step to step, of both runs together, and by a third of the decades between the median
and the layer that is farthest from it. Being relative, it does not see the scale of the loss. Layers whose names and
kinds are like one another share one finding. A gradient that was beyond ten times that of the others, or under a
tenth, and has come nearer is told as an improvement. Only against a baseline, for layers that both runs have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradcheck_cli.baseline import LayerMeasure
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import pattern
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Severity

OUTLYING = 1.0
Pair = tuple[LayerMeasure, LayerMeasure]


@rule("GC802", "gradient-shift", Severity.ERROR)
def check(change: Change, limits: Limits) -> Iterator[Outcome]:
    groups: dict[tuple[str, str], list[Pair]] = {}
    for then, now in change.layers():
        if abs(shift_of(then, now)) > change.gradient_limit(then, now) and not has_come_nearer(then, now):
            groups.setdefault((pattern(now.name), now.type), []).append((then, now))
    for pairs in groups.values():
        worst = max(pairs, key=lambda pair: abs(shift_of(*pair)))
        yield check.finding(
            describe(*worst, others=len(pairs) - 1),
            "look at what has changed in this layer and behind it: initialisation, scale, normalisation, a path to the"
            " loss that was cut; if it is meant, --write-baseline",
            layer=pattern(worst[1].name) if len(pairs) > 1 else worst[1].name,
            evidence=give_evidence(pairs, change.gradient_limit(*worst)),
        )


def has_come_nearer(then: LayerMeasure, now: LayerMeasure) -> bool:
    """Whether a gradient that was beyond ten times the others', or under a tenth, is nearer to them now."""
    return abs(then.gradient or 0.0) > OUTLYING and abs(now.gradient or 0.0) < abs(then.gradient or 0.0)


def shift_of(then: LayerMeasure, now: LayerMeasure) -> float:
    """Decades, positive where the gradient is larger now; 0 where either has none."""
    return 0.0 if then.gradient is None or now.gradient is None else now.gradient - then.gradient


def describe(then: LayerMeasure, now: LayerMeasure, others: int) -> str:
    """How much the layer's gradient has changed."""
    shift = shift_of(then, now)
    like = f"; that of {count(others, 'layer')} like it has shifted, too" if others else ""
    return (
        f"beside the other layers, the gradient of {now.name or 'the model'} is {10 ** abs(shift):.3g} times"
        f" {'larger' if shift > 0 else 'smaller'} than in the baseline{like}"
    )


def give_evidence(pairs: Sequence[Pair], limit: float) -> dict[str, object]:
    """The numbers behind a finding, in decades over the median of all layers."""
    return {
        "layers": [now.name for _, now in pairs],
        "gradient_decades": [now.gradient for _, now in pairs],
        "baseline_gradient_decades": [then.gradient for then, _ in pairs],
        "limit": limit,
    }
