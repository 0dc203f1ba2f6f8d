"""# GC303 nonfinite-parameter

## What it detects

Parameters that hold NaN or infinite elements, and since which step they do.

## Why it matters

The model is lost: no update brings a NaN back to a number. Every output that depends on it is NaN, and so is every
checkpoint written from then on.

## How to fix

1. If they were so before the first step: the initialisation or the checkpoint is broken. `torch.empty` without an
   initialisation, a division by a fan-in of 0, or a checkpoint saved too late.
2. Otherwise go back to a checkpoint from before that step, and look at the step that did it: its gradient (GC302) or
   its loss (GC301) was not finite, or the learning rate made the weights overflow (GC203, GC306).
3. Until the cause is found, skip the update when the gradient norm is not finite.

## How it decides

The norm of a parameter in the forward pass of a recorded step, or after the last step, is not finite. One finding: the
first such step and all parameters affected at it. Not evaluated without a recorded step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.wording import count, list_names
from gradcheck_cli.records import Bools, Recording, Severity


@rule("GC303", "nonfinite-parameter", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if not recording.steps:
        yield check.skip("no step was recorded")
        return
    rows = ~np.isfinite(recording.statistics.parameter_norm)
    bad_rows = np.flatnonzero(rows.any(axis=1))
    if len(bad_rows):
        step, affected = int(recording.statistics.steps[bad_rows[0]]), rows[bad_rows[0]]
        when = f"in the forward pass of step {step}"
    else:
        step, affected = recording.steps - 1, ~np.isfinite(recording.final_parameter_norm)
        when = f"after the last step ({step})"
    names = named(recording, affected)
    if not names:
        return
    from_start = bool(len(bad_rows)) and step == 0
    yield check.finding(
        f"NaN or Inf in {len(names)} of {count(len(recording.parameters), 'parameter')} {when}: {list_names(names)}",
        "they were so before the first update: check the initialisation and the checkpoint"
        if from_start
        else "go back to an earlier checkpoint and look at the update just before: a gradient (GC302) or loss (GC301)"
        " that was not finite, or a learning rate that made the weights overflow",
        layer=next(parameter.module for parameter in recording.parameters if parameter.name == names[0]),
        step=step,
        evidence={"step": step, "parameters": names, "from_start": from_start, "after_last_step": not len(bad_rows)},
    )


def named(recording: Recording, affected: Bools) -> list[str]:
    return [parameter.name for parameter, bad in zip(recording.parameters, affected, strict=True) if bad]
