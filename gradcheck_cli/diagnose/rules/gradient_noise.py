"""# GC610 gradient-noise

## What it detects

A batch that is far too small for the noise in the gradient, or far larger than that noise calls for.

## Why it matters

The gradient of a batch is the true one plus noise, which a batch of twice the size halves. The simple noise scale is
the batch size at which the two are equal. Far below it, steps go mostly at random, and a larger batch pays for
itself in fewer steps; far above it, a larger batch costs computation and changes next to nothing. McCandlish et
al., "An Empirical Model of Large-Batch Training", 2018, section 2 and appendix A.

## How to fix

1. Batch too small: accumulate gradients (`--accumulate`), or a larger batch, up to about the noise scale; or a lower
   learning rate, or an optimizer with more momentum, which average over steps instead.
2. Batch too large: a smaller one takes the same steps in a fraction of the time; or keep it, with a higher learning
   rate. The noise scale grows as the loss falls, often tenfold: judge it late in the training.

## How it decides

With a gradient g = G + noise / sqrt(B) on independent batches of size B, two steps in a row have E[g . g'] = |G|^2
and E[(|g|^2 + |g'|^2) / 2] = |G|^2 + tr(Sigma) / B, if the model moves little between them. So the ratio r of the
first to the second, over all parameters together, gives the noise scale in units of the batch: tr(Sigma) / (B |G|^2)
= 1/r - 1. r is averaged over the probed steps, at least five, with Student's 95 % interval. It is information where
the whole interval of the noise scale is above 30 batches or under 1/30 of a batch; between them any batch size is a
fair choice, and healthy runs measure 0.035 and more, most of them with wide intervals. By layer, r / (1 - r) is the
signal to noise ratio of the squared gradient.

Silent with the whole data set as one batch (r above 0.995). Where r is negative with its whole interval, the steps
overshoot, the model moves too far in one step and nothing can be said: not evaluated. Large parameters are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Floats, Recording, Severity

FEWEST_PAIRS = 5
MANY_BATCHES = 30.0
FULL_BATCH = 0.995
Z = 1.959964
SHOWN = 5


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@rule("GC610", "gradient-noise", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    agreement = measure_agreement(recording)
    if len(agreement) < FEWEST_PAIRS:
        yield check.skip(f"{len(agreement)} pairs of steps in a row were measured, {FEWEST_PAIRS} are needed")
        return
    found = interval_of(agreement)
    if found.high < 0:
        yield check.skip("the gradients of steps in a row oppose one another: the steps overshoot")
    elif noise(found.high) > MANY_BATCHES:
        yield small_batch(recording, found, len(agreement))
    elif noise(found.low) < 1 / MANY_BATCHES and found.mean <= FULL_BATCH:
        yield large_batch(recording, found, len(agreement))


def measure_agreement(recording: Recording) -> Floats:
    """(pairs,): r of each pair of steps, over all parameters together."""
    if recording.signals is None:
        return np.zeros(0)
    return ratio(recording.signals.gradient_dot, recording.signals.gradient_square)


def ratio(dot: Floats, square: Floats) -> Floats:
    """(pairs,) of dot and square (rows, parameters): sum over sum, of the rows with finite and non-zero gradients."""
    known = np.isfinite(dot) & np.isfinite(square)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = np.where(known, dot, 0).sum(axis=1) / np.where(known, square, 0).sum(axis=1)
    agreement: Floats = np.clip(found[np.isfinite(found)], -1, 1)
    return agreement


def interval_of(values: Floats) -> Interval:
    """Mean of values (n,), n >= 2, with Student's 95 % interval (quantile: Abramowitz and Stegun, 26.7.5)."""
    degrees = len(values) - 1
    quantile = Z + (Z**3 + Z) / (4 * degrees) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * degrees**2)
    mean, width = float(values.mean()), quantile * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - width, mean + width)


def noise(agreement: float) -> float:
    """The noise scale in batches: infinite where nothing agrees."""
    return max(0.0, 1 / agreement - 1) if agreement > 0 else float("inf")


def small_batch(recording: Recording, found: Interval, pairs: int) -> Outcome:
    """The finding for a gradient that is mostly noise."""
    least = noise(found.high)
    return check.finding(
        f"the gradient is mostly noise: gradients of steps in a row agree by {found.mean:.1%} of their squares, so the"
        f" noise scale is at least {least:.0f} times this batch",
        f"accumulate gradients or enlarge the batch, up to about {least:.0f} times; or lower the learning rate, so that"
        " more steps average the noise out",
        evidence=evidence(recording, found, pairs),
    )


def large_batch(recording: Recording, found: Interval, pairs: int) -> Outcome:
    """The finding for a batch beyond what the noise calls for."""
    most = noise(found.low)
    return check.finding(
        f"the gradient has next to no noise: gradients of steps in a row agree by {found.mean:.1%} of their squares, so"
        f" the noise scale is at most {most:.2g} of this batch",
        f"a batch of a tenth would take nearly the same steps; or raise the learning rate. Look again late in the"
        f" training ({recording.steps} steps so far): the noise grows as the loss falls",
        evidence=evidence(recording, found, pairs),
    )


def evidence(recording: Recording, found: Interval, pairs: int) -> dict[str, object]:
    """The numbers behind a finding; an interval's open end is None."""
    ends = [noise(value) for value in (found.mean, found.high, found.low)]
    middle, low, high = (value if np.isfinite(value) else None for value in ends)
    return {
        "pairs_of_steps": pairs,
        "agreement": found.mean,
        "agreement_low": found.low,
        "agreement_high": found.high,
        "noise_scale_batches": middle,
        "noise_scale_batches_low": low,
        "noise_scale_batches_high": high,
        "noisiest_layers": signal_to_noise(recording),
        "information_above_batches": MANY_BATCHES,
        "information_below_batches": 1 / MANY_BATCHES,
    }


def signal_to_noise(recording: Recording) -> dict[str, float]:
    """|G|^2 over tr(Sigma) / B of the SHOWN layers where it is smallest, by module; 0 where nothing agrees."""
    assert recording.signals is not None
    modules = [parameter.module for parameter in recording.parameters]
    found: dict[str, float] = {}
    for module in dict.fromkeys(modules):
        own = [column for column, name in enumerate(modules) if name == module]
        agreement = ratio(recording.signals.gradient_dot[:, own], recording.signals.gradient_square[:, own])
        if len(agreement):
            mean = min(float(agreement.mean()), FULL_BATCH)
            found[module] = max(0.0, mean / (1 - mean))
    return dict(sorted(found.items(), key=lambda item: item[1])[:SHOWN])
