"""# GC613 constant-output

## What it detects

A model that answers the same whatever it is given: outputs that do not vary across the batch, one class for every
example while the loss does not fall, or outputs that are NaN.

## Why it matters

The loss can still fall a little, to that of the best constant answer (the frequencies of the classes, the mean of the
targets), and looks like slow training. It is none: nothing of the input reaches the output. A network collapses onto
its biases when the signal dies on the way (saturated or dead activations, weights that begin too small), when the input
is constant by a mistake in the data, or when one huge step has killed it.

## How to fix

1. Look at what else was found: GC101, GC104 and the rules of GC6xx name the layer where the signal dies.
2. Check that the batches differ: print the standard deviation of the input across the batch, in the training loop.
3. If it began well and collapsed, lower the learning rate, and warm it up.
4. One class for all: balance the batches, or weight the loss, and begin with a smaller last layer.

Karpathy, "A Recipe for Training Neural Networks" (2019), sections "set up the end-to-end training skeleton" (the
input-independent baseline) and "overfit".

## How it decides

On each probed step, the standard deviation of the model's output across the examples of the batch (positions of a
sequence count as examples), over the output's RMS. The first probed step does not count, since a last layer may begin
at zero. At most 1e-6, the relative accuracy of float32 sums, on all others, at least two, is an error: the output is
constant to its last digits; at most 1e-4 is a warning where the output is scores of classes (a regression may well
have a large mean). Healthy models measure 0.19 and more, regressions on targets of 2000 +- 5 measure 3e-4. One class
for at least 99.9 % of the examples on all probed steps is a warning where the loss does not clearly fall (GC101) and
the variation is under 0.01; a young language model gives the most frequent token to all, but its loss falls. Scores
that are NaN on a probed step while the loss is finite are an error. Where the input does not vary from example to
example either, a warning says that. Not evaluated where the model returns no tensor of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.flow import loss_falls
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.records import Floats, Recording, Severity

CONSTANT = 1e-6
NEARLY = 1e-4
ONE_CLASS = 0.999
ALIKE = 0.01
FEWEST_PROBES = 2
WHERE = "look where the signal dies: the other findings, the input's spread across the batch, and the learning rate"


@rule("GC613", "constant-output", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    signals = recording.signals
    if signals is None:
        yield check.skip("the recording has no signals: it was made without them")
        return
    loss = recording.series.loss[recording.probes.steps]  # where that is NaN as well, GC301 says it
    broken = np.isnan(signals.output_variation) & np.isfinite(signals.classes) & np.isfinite(loss)
    variation, same = signals.output_variation[1:], signals.same_class[1:]
    known = np.isfinite(variation)
    if broken.any():
        yield not_a_number(recording, int(np.flatnonzero(broken)[0]))
    elif known.sum() < FEWEST_PROBES:
        yield check.skip(f"outputs of a batch were seen on {int(known.sum())} probed steps after the first")
    else:
        yield from constant(recording, variation[known], same[known], bool(np.isfinite(signals.classes).any()))


def constant(recording: Recording, variation: Floats, same: Floats, classifies: bool) -> Iterator[Outcome]:
    """The finding for outputs that do not depend on the input, by those of the probed steps after the first."""
    largest = float(variation.max())
    falls = loss_falls(recording.series.loss)
    one_class = classifies and bool((same >= ONE_CLASS).all()) and not falls
    evidence = {
        "largest_variation": largest,
        "median_variation": median(variation),
        "same_class": [float(share) if np.isfinite(share) else None for share in same],
        "probes": len(variation),
        "loss_falls": falls,
        "error_at": CONSTANT,
        "warning_at": NEARLY,
        "one_class_below": ALIKE,
    }
    blank = recording.signals is not None and bool((recording.signals.input_variation[1:] <= CONSTANT).any())
    if largest <= CONSTANT and blank:
        yield check.finding(
            "all examples of a batch are alike when they reach the model, and so is what it says of them",
            "look at a batch: a transform that rounds or zeroes the inputs, or a dataset that repeats one example",
            severity=Severity.WARNING,
            evidence={**evidence, "blank_input": True},
        )
    elif largest <= CONSTANT or (classifies and largest <= NEARLY):
        yield check.finding(
            f"the output does not depend on the input: across the batch it varies by {largest:.1e} of its size at most,"
            f" on {len(variation)} probed steps",
            WHERE,
            severity=Severity.ERROR if largest <= CONSTANT else Severity.WARNING,
            evidence=evidence,
        )
    elif one_class and largest < ALIKE:
        yield check.finding(
            f"every example gets the same class on {len(variation)} probed steps, with nearly the same scores, and the"
            " loss does not fall",
            f"{WHERE}; balance the batches or weight the loss",
            severity=Severity.WARNING,
            evidence=evidence,
        )


def not_a_number(recording: Recording, row: int) -> Outcome:
    """The finding for scores that are NaN."""
    step = int(recording.probes.steps[row])
    return check.finding(
        f"the scores are NaN on step {step}, so every prediction is meaningless",
        "gradcheck nan-trace names the operation that made the first NaN",
        step=step,
        evidence={"step": step, "output_variation": None},
    )
