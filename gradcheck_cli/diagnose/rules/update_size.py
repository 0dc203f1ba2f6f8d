"""# GC609 update-size

## What it detects

Update too large or too small: optimizer steps that move the weights by a large part of their own size, or by nothing to
speak of. The message says which.

## Why it matters

The size of an update over that of the weights says what the learning rate means for this model, whatever the optimizer.
About 1e-3 a step is usual. Near 1 the weights are replaced rather than trained: what they had learned is gone,
units die and the loss jumps. Under 1e-7 the updates of float32 weights are lost in rounding, and what is left does
nothing in a million steps; bfloat16 weights lose most updates under 1e-3 already. Karpathy, "CS231n Convolutional
Neural Networks for Visual Recognition", notes on training, section "Ratio of weights:updates"; You et al., "Large
Batch Training of Convolutional Networks", 2017, section 4.

## How to fix

Too large:

1. Lower the learning rate by as much as the ratio is above 1e-2.
2. A warm-up over the first steps, where only the first steps are too large: Adam's first ones are all of full size.
3. Clip the gradient's norm, where single steps are too large.

Too small:

1. Raise the learning rate, tenfold at a time, until the loss falls.
2. Check that the scheduler doesn't begin at 0 for ever, and doesn't end before the training does.
3. Keep the weights in float32 (autocast instead of `model.bfloat16()`).
4. If the gradients vanish (GC101), that comes first.

## How it decides

On each probed step, the RMS of the update over the RMS of the parameter, for weights of two or more dimensions; the
median over those of one optimizer group. Too large is a warning where that exceeds 0.3 on the first step or 0.1 in the
median over the probed steps; only information where the first step alone is too large and the loss of the next three,
by their median, is no higher for it, as with RMSprop, whose first steps are ten times its later ones. Weights that
begin at less than a tenth of 1 / sqrt(fan-in), zero included (the last layer of a branch, LoRA's B), don't count there,
for they have to grow, nor do vectors (LayerScale, biases, norms). Healthy models measure up to 0.1 on the first step
and 0.07 in the median, young ones under Adam included.

Too small is a warning where the largest ratio of any weight with a gradient is under 1e-7 on all of the last three
probed steps while the loss does not clearly fall (GC101); under 1e-6 it is information. Not while the learning rate
still rises: a warm-up begins with tiny steps. The largest ratio is taken because layers that lag behind others are what
the rules of GC1xx are about. Not evaluated without an optimizer; on fewer than three probed steps with an update only
the first is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from gradcheck_cli.diagnose.flow import loss_falls
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.diagnose.wording import list_names
from gradcheck_cli.records import Bools, Floats, Recording, Severity

FIRST = 0.3
MEDIAN = 0.1
LOST = 1e-7
SLOW = 1e-6
TINY_WEIGHT = 0.1
FEWEST_PROBES = 3
USUAL = 1e-3


@rule("GC609", "update-size", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if not recording.run.has_optimizer:
        yield check.skip("the run has no optimizer")
        return
    if recording.signals is None:
        yield check.skip("the recording has no signals: it was made without them")
        return
    weights = [column for columns in by_group(recording).values() for column in columns]
    ratios = recording.probes.update_ratio[:, weights]
    updated = np.array([np.isfinite(row).any() for row in ratios], dtype=np.bool_)
    found = list(too_large(recording, updated))
    yield from found
    if updated.sum() >= FEWEST_PROBES:
        yield from too_small(recording, ratios[updated])
    elif not found:
        yield check.skip(f"weights were updated on {int(updated.sum())} probed steps, {FEWEST_PROBES} are needed")


def by_group(recording: Recording) -> dict[int | None, list[int]]:
    """Trained weights of two or more dimensions, by optimizer group."""
    groups: dict[int | None, list[int]] = {}
    trainable = {*recording.trainable}
    for column, parameter in enumerate(recording.parameters):
        if parameter in trainable and parameter.in_optimizer and len(parameter.shape) >= 2:
            groups.setdefault(parameter.group, []).append(column)
    return groups


def too_large(recording: Recording, updated: Bools) -> Iterator[Outcome]:
    """A finding for each optimizer group whose weights move too far."""
    for group, columns in by_group(recording).items():
        judged = [column for column in columns if begins_sized(recording, column)]
        sizes = medians(recording.probes.update_ratio[updated][:, judged])
        if not len(sizes):
            continue
        first, usual = float(sizes[0]), median(sizes) if len(sizes) >= FEWEST_PROBES else 0.0
        if first > FIRST or usual > MEDIAN:
            yield large(recording, group, judged, first, usual)


def begins_sized(recording: Recording, column: int) -> bool:
    """Whether a weight begins with elements of ordinary size."""
    assert recording.signals is not None
    weights = recording.signals.weights
    return float(weights.std[column]) * math.sqrt(weights.fan_in[column]) >= TINY_WEIGHT


def medians(ratios: Floats) -> Floats:
    """(rows,) of ratios (rows, weights): the median over the weights, without rows that have none."""
    known = [row[np.isfinite(row)] for row in ratios]
    return np.array([median(row) for row in known if len(row)])


def large(recording: Recording, group: int | None, columns: Sequence[int], first: float, usual: float) -> Outcome:
    """The finding for updates that are too large."""
    names = [recording.parameters[column].name for column in columns]
    alone = first > FIRST and usual <= MEDIAN
    size, when = (first, "on the first step") if alone else (usual, "in the median over the probed steps")
    return check.finding(
        f"update too large: {when} the weights of {list_names(names, 3)} move by {size:.2g} of their own size"
        f" (about {USUAL:g} is usual)",
        "warm the learning rate up over the first steps, or lower it"
        if alone
        else f"lower the learning rate by about {size / 0.01:.0f} times",
        layer=recording.parameters[columns[0]].module if len(columns) == 1 else None,
        step=int(recording.probes.steps[0]) if alone else None,
        severity=Severity.INFO if alone and is_harmless(recording) else Severity.WARNING,
        evidence={
            "which": "too large",
            "group": group,
            "weights": len(names),
            "first_update_ratio": first,
            "median_update_ratio": usual,
            "first_at": FIRST,
            "median_at": MEDIAN,
        },
    )


def is_harmless(recording: Recording) -> bool:
    """Whether the loss did not rise after the first step."""
    loss = recording.series.loss
    return len(loss) > FEWEST_PROBES and median(loss[1 : 1 + FEWEST_PROBES]) <= loss[0]


def too_small(recording: Recording, ratios: Floats) -> Iterator[Outcome]:
    """The finding for weights of which none moves, by the ratios (rows, weights) of rows with an update."""
    late = ratios[-FEWEST_PROBES:]
    largest = float(late[np.isfinite(late)].max())
    if largest >= SLOW or not has_gradients(recording) or warms_up(recording) or loss_falls(recording.series.loss):
        return
    yield check.finding(
        f"update too small: no weight moves by more than {largest:.1g} of its own size in a step"
        f" (about {USUAL:g} is usual), and the loss does not fall",
        "raise the learning rate, tenfold at a time; check the scheduler; keep the weights in float32, since smaller"
        " formats round small updates away",
        severity=Severity.WARNING if largest < LOST else Severity.INFO,
        evidence={
            "which": "too small",
            "largest_update_ratio": largest,
            "warning_below": LOST,
            "information_below": SLOW,
            "learning_rates": [float(rate) for rate in recording.series.lr[-1]],
        },
    )


def has_gradients(recording: Recording) -> bool:
    """Whether weights of two or more dimensions get gradients lately; that they don't is GC103's and GC104's to say."""
    weights = [column for columns in by_group(recording).values() for column in columns]
    late = recording.statistics.norm[recording.statistics.steps >= recording.probes.steps[-FEWEST_PROBES:][0]]
    return bool((late[:, weights] > 0).any())


def warms_up(recording: Recording) -> bool:
    """Whether a learning rate is still rising at the end."""
    rates = recording.series.lr
    return len(rates) > 1 and bool((rates[-1] > rates[-2]).any())
