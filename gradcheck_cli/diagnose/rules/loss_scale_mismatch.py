"""# GC611 loss-scale-mismatch

## What it detects

Gradients that are not those of the loss: a constant factor too large or too small, or something else altogether. Only
with `gradcheck profile --check-scale`.

## Why it matters

A factor is another learning rate to SGD; Adam hides it, but clipping and thresholds are then off by as much, and norms
of two runs cannot be compared. It comes from a loss scale that was never divided out (Micikevicius et al., "Mixed
Precision Training", 2018, section 3.2), from accumulated gradients that were summed where a mean was meant, or from a
wrong backward of one's own.

## How to fix

1. A power of two: call `scaler.unscale_(optimizer)` before anything reads the gradients, and look for a factor in hooks
   (`register_hook`, `register_full_backward_hook`) and in each `torch.autograd.Function`.
2. The number of accumulated batches: divide the loss by it, once.
3. Anything else: check each `torch.autograd.Function` with `torch.autograd.gradcheck`, and look for `.detach()` between
   a parameter and the loss. Where the backward differs on purpose (straight-through estimators, stopped or reversed
   gradients), ignore this rule.

## How it decides

After the run the gradient g of the last step's batches is made once more, as the optimizer gets it, and held against
the directional derivative of the loss along it, (L(p + s u) - L(p - s u)) / (2 s) with u = g / |g|, for nine step sizes
s from 1e-2 to 1e-6 of the parameters' norm. For the gradient of the loss it equals |g| (central differences: Nocedal
and Wright, "Numerical Optimization", 2nd edition, section 8.1). Every evaluation has the same random state, so dropout
drops the same units. Of neighbouring sizes those two count whose derivatives agree best, if they agree to 2 % and the
loss changes by at least 100 times its own resolution; without such a pair nothing is evaluated.

The ratio of |g| to the derivative is between 0.994 and 1.005 on healthy networks; within 10 % of 1 it is silent.
Outside 0.5 to 2, where the derivative is not positive, and where the ratio is within 3 % of a power of two or of the
number of accumulated batches, which is then named, it is an error; otherwise a warning. A loss that was itself
multiplied has a gradient to match, and is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.examination import ScaleCheck
from gradcheck_cli.records import Finding, Recording, RunInfo, Severity

AGREEMENT = 0.02
LEAST_CHANGE = 100.0
SILENT = 0.1
LOWEST, HIGHEST = 0.5, 2.0
FIT = 0.03
LEAST_SCALE = 16


class Derivative(NamedTuple):
    """A directional derivative, and the two sizes of steps between which it holds."""

    value: float
    sizes: tuple[float, float]


@rule("GC611", "loss-scale-mismatch", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    scale = recording.examination.scale if recording.examination else None
    if scale is None:  # nobody asked
        return
    if scale.reason:
        yield check.skip(scale.reason)
        return
    found = find_derivative(scale)
    if found is None:
        yield check.skip("finite differences of the loss along the gradient do not converge")
        return
    ratio = scale.grad_norm / found.value if found.value else math.inf
    if abs(ratio - 1) > SILENT:
        yield report(recording.run, scale, found, ratio)


def find_derivative(scale: ScaleCheck) -> Derivative | None:
    """Of neighbouring step sizes those whose slopes agree best; None where no two agree to AGREEMENT."""
    found, best = None, AGREEMENT
    least = LEAST_CHANGE * scale.resolution * abs(scale.loss)
    for (size, slope), (smaller, other) in pairwise(zip(scale.sizes, scale.slopes, strict=True)):
        larger = max(abs(slope), abs(other))
        if not 0 < larger < math.inf or abs(other) * 2 * smaller < least:
            continue
        difference = abs(slope - other) / larger
        if difference <= best:
            found, best = Derivative((slope + other) / 2, (size, smaller)), difference
    return found


def report(run: RunInfo, scale: ScaleCheck, found: Derivative, ratio: float) -> Finding:
    factor, advice = explain(ratio, run.accumulate)
    outside = factor is not None or not LOWEST <= ratio <= HIGHEST
    how = f"{factor} times that" if factor else "not that"
    return check.finding(
        f"the gradient is {how} of the loss: its norm is {scale.grad_norm:.4g}, but the loss changes along it by"
        f" {found.value:.4g} a unit of length, which makes {ratio:.4g}",
        advice,
        severity=Severity.ERROR if outside else Severity.WARNING,
        evidence={
            "grad_norm": scale.grad_norm,
            "directional_derivative": found.value,
            "ratio": ratio,
            "step_sizes": list(found.sizes),
            "loss": scale.loss,
            "accumulate": run.accumulate,
            "silent_within": SILENT,
            "lowest": LOWEST,
            "highest": HIGHEST,
        },
    )


def explain(ratio: float, accumulate: int) -> tuple[str | None, str]:
    """The factor in words if it is a familiar one, and what to do."""
    if accumulate > 1 and (fits(ratio, accumulate) or fits(ratio, 1 / accumulate)):
        factor = f"{accumulate}" if ratio > 1 else f"1/{accumulate}"
        return f"{factor} (the accumulated batches)", "divide the loss by their number, exactly once"
    power = round(math.log2(ratio)) if 0 < ratio < math.inf else 0
    if power and fits(ratio, 2.0**power):
        return f"2^{power}", scale_advice(power)
    return None, (
        "check hooks and each torch.autograd.Function with torch.autograd.gradcheck, and look for .detach() between a"
        " parameter and the loss; ignore GC611 where the backward differs on purpose (straight-through estimators)"
    )


def scale_advice(power: int) -> str:
    """What to do about a factor of a power of two."""
    if abs(power) < math.log2(LEAST_SCALE):
        return (
            f"look for what multiplies gradients by 2^{power}: accumulated batches summed instead of averaged, a loss"
            " scale, a hook, a backward of your own"
        )
    return (
        "divide the gradients by the loss scale once, scaler.unscale_(optimizer), before they are read or clipped; look"
        f" for hooks and torch.autograd.Functions that multiply by 2^{power}"
    )


def fits(ratio: float, factor: float) -> bool:
    """Whether the ratio is the factor, up to FIT."""
    return abs(ratio / factor - 1) <= FIT
