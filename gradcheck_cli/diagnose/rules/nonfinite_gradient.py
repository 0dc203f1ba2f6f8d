"""# GC302 nonfinite-gradient

## What it detects

Gradients that hold NaN or infinite elements, and the layer nearest to the loss where they do.

## Why it matters

An optimizer step with one such element makes its weight non-finite for good, and the next forward pass spreads it over
the whole model. `clip_grad_norm_` makes it worse: the norm is not finite, so every other gradient becomes NaN too.

## How to fix

1. If the loss was not finite at that step (GC301), begin there: the gradients only follow.
2. If the loss was finite, an operation has an infinite slope: sqrt or norm at 0, log or division near 0, `x ** p` at 0,
   or `torch.where` that hides a NaN of the branch not taken. Add an epsilon inside, or mask the input, not the output.
3. Look at the layer nearest to the loss first: backward runs from there, and what it meets first infects the rest.
4. In fp16, gradients above 65504 overflow: use a GradScaler, which skips such steps, or bf16.

## How it decides

Elements that are not finite were counted in the gradient of a parameter; where the counts of a step were not kept, its
global norm is not finite. The layer named is the last in execution order that is affected at the first such step. If a
GradScaler skipped every such step the finding is info, because its scale begins high on purpose and comes down by just
these skips. Not evaluated without a recorded step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import in_execution_order
from gradcheck_cli.diagnose.wording import count, describe_step, locate_step
from gradcheck_cli.records import Ints, Recording, Severity


@rule("GC302", "nonfinite-gradient", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    series = recording.series
    if not recording.steps:
        yield check.skip("no step was recorded")
        return
    steps = find_steps(recording)
    if not len(steps):
        return
    first = int(steps[0])
    names = find_parameters(recording, first)
    owners = dict.fromkeys(parameter.module for parameter in recording.parameters if parameter.name in names)
    modules = in_execution_order(recording, owners)
    caught = bool((series.skipped[steps] & np.isfinite(series.loss_scale[steps])).all())
    loss_is_finite = bool(np.isfinite(series.loss[first]))
    where = (
        f" in {count(len(names), 'parameter')}, nearest to the loss: {modules[-1] or 'the model itself'}"
        if names
        else ""
    )
    if caught:
        verdict = (
            f"; the GradScaler skipped {'it' if len(steps) == 1 else f'all {len(steps)} such steps'}, as it should"
        )
    else:
        verdict = "" if loss_is_finite else "; the loss was already not finite at that step"
    yield check.finding(
        f"the gradient holds NaN or Inf at {describe_step(series, first)}{where}{verdict}",
        choose_hint(caught, loss_is_finite),
        severity=Severity.INFO if caught else Severity.ERROR,
        layer=modules[-1] if modules else None,
        step=first,
        evidence={
            **locate_step(series, first),
            "parameters": names,
            "modules": modules,
            "nonfinite_steps": [int(step) for step in steps],
            "skipped_by_scaler": caught,
            "loss_is_finite": loss_is_finite,
        },
    )


def find_steps(recording: Recording) -> Ints:
    """The steps with non-finite gradients; a norm tells only where the counts of a step were thinned away."""
    statistics = recording.statistics
    counted = statistics.steps[(statistics.nonfinite > 0).any(axis=1)]
    by_norm = np.flatnonzero(~np.isfinite(recording.series.grad_norm))
    return np.union1d(counted, np.setdiff1d(by_norm, statistics.steps))


def find_parameters(recording: Recording, step: int) -> list[str]:
    rows = recording.statistics.nonfinite[recording.statistics.steps == step]
    affected = (rows > 0).any(axis=0)
    return [parameter.name for parameter, bad in zip(recording.parameters, affected, strict=True) if bad]


def choose_hint(caught: bool, loss_is_finite: bool) -> str:
    if caught:
        return "normal at the start, while the scale comes down; GC305 tells if it goes on"
    if not loss_is_finite:
        return "look at the loss first (GC301): the gradients only follow from it"
    return (
        "the loss was finite, so an operation has an infinite slope: sqrt, norm, log, division or a power at 0, or a"
        " torch.where that hides a NaN; add an epsilon inside it; in fp16 use a GradScaler"
    )
