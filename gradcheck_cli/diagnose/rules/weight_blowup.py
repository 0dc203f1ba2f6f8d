"""# GC306 weight-blowup

## What it detects

Parameters that hold enormous values, or that grow tenfold within the run.

## Why it matters

Large weights make large activations: they saturate sigmoids and softmaxes, overflow in fp16 above 65504, and where
a normalisation follows they hide in the loss while the effective learning rate falls towards zero. Weights that grow
tenfold within one run are mostly on their way to divergence.

## How to fix

1. Lower the learning rate, or warm it up.
2. Add weight decay (AdamW's 0.01 to 0.1), or raise it.
3. Clip the gradient; look at GC201 and GC204 for what drives the growth.
4. Check the initial scale: weights that begin far too small grow because they must.

## How it decides

A parameter's largest value exceeds 1e6 on a sampled step; or its RMS (norm / sqrt(numel)) at the end is ten times that
of its first recorded step. Growth is judged only for tensors of two or more dimensions that began with an RMS of 1e-3
or more: what is initialised at or near zero (LoRA's B, ReZero, the last layer of a residual branch) grows from there by
any factor, and so does a bias that begins at 0.01. What begins at less than a tenth of 1 / sqrt(fan-in), as the last
layer of a policy, is compared with that tenth. One finding a run, for the worst parameter, with all of them in the
evidence. Parameters that are not finite are GC303. Not evaluated without a recorded step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_module
from gradcheck_cli.diagnose.wording import list_names
from gradcheck_cli.records import Floats, Recording, Severity

LARGEST_VALUE = 1e6
GROWTH = 10.0
SMALLEST_START = 1e-3
TINY_WEIGHT = 0.1


@rule("GC306", "weight-blowup", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if not len(recording.statistics.steps) and not len(recording.probes.steps):
        yield check.skip("no step was recorded")
        return
    largest, growth = largest_values(recording), growth_factors(recording)
    badness = np.fmax(largest / LARGEST_VALUE, growth / GROWTH)
    order = [int(index) for index in np.argsort(-badness, kind="stable")]
    bad = [i for i in order if largest[i] > LARGEST_VALUE or growth[i] >= GROWTH]
    if not bad:
        return
    names = [recording.parameters[index].name for index in bad]
    worst = bad[0]
    parts = [f"holds a value of {largest[worst]:.3g}"] if largest[worst] > LARGEST_VALUE else []
    parts += [f"grew {growth[worst]:.3g} times in RMS"] if growth[worst] >= GROWTH else []
    others = f"; also {list_names(names[1:])}" if len(names) > 1 else ""
    yield check.finding(
        f"{names[0]} {' and '.join(parts)} within the run{others}",
        "lower or warm up the learning rate; add weight decay; clip the gradient; check the weights' initial scale",
        layer=recording.parameters[worst].module,
        evidence={
            "parameters": names,
            "modules": list(by_module(recording.parameters[index] for index in bad)),
            "largest_value": float(largest[worst]),
            "largest_value_limit": LARGEST_VALUE,
            "growth": float(growth[worst]),
            "growth_limit": GROWTH,
            "smallest_start": SMALLEST_START,
        },
    )


def largest_values(recording: Recording) -> Floats:
    """(parameters,): the largest finite max |p| of the sampled steps, 0 without one."""
    values = recording.probes.parameter_max
    largest: Floats = np.where(np.isfinite(values), values, 0.0).max(axis=0, initial=0.0)
    return largest


def growth_factors(recording: Recording) -> Floats:
    """(parameters,): RMS at the end over RMS at the first recorded step, 0 where growth is not judged."""
    factors = np.zeros(len(recording.parameters))
    if not len(recording.statistics.steps):
        return factors
    for index, parameter in enumerate(recording.parameters):
        norms = np.append(recording.statistics.parameter_norm[:, index], recording.final_parameter_norm[index])
        start, scale = float(norms[0]), max(1, parameter.numel) ** 0.5
        finite = norms[np.isfinite(norms)]
        if len(parameter.shape) >= 2 and SMALLEST_START <= start / scale < np.inf:
            factors[index] = float(finite[-1]) / max(start, smallest_size(recording, index) * scale)
    return factors


def smallest_size(recording: Recording, index: int) -> float:
    """The RMS under which a weight is smaller than usual initialisations make it; 0 where its fan-in is not known."""
    fan_in = recording.signals.weights.fan_in[index] if recording.signals else np.inf
    return TINY_WEIGHT / float(fan_in) ** 0.5 if fan_in > 0 else 0.0
