"""# GC104 zero-gradient

## What it detects

A weight whose gradient is there but exactly zero in every element, on every step after the first update.

## Why it matters

The backward pass runs through the layer and brings nothing: the layer can't learn, and no number of steps will
change that. The loss may still fall, because the layers after it learn alone.

## How to fix

1. Dead ReLUs (every unit negative for every input): lower the learning rate, use He initialisation, or LeakyReLU or
   GELU; see Lu et al., "Dying ReLU and Initialization" (2019).
2. A branch multiplied by zero: a mask that hides everything, a loss weight or gate of 0, a `relu` or `clamp` on the
   output that is never active.
3. A saturated sigmoid, tanh or softmax, whose slope rounds to exactly 0: scale its inputs down, normalise them.
4. Underflow: fp16 gradients below 6e-8 become 0 without a GradScaler; use one, or bf16.

## How it decides

`max |g|` is 0 on every recorded step after the first effective update (not skipped, with a learning rate above 0), on
three such steps at least. The first update matters because zero-initialised layers (LoRA's B, ReZero, the last layer
of a residual branch) hold back the gradient of others until they have moved. Only tensors of two or more dimensions
are judged: the biases of attention keys, and those before a normalisation, are zero by structure. Steps where the
gradient is None don't count (GC103). It is a warning where like-named modules do get a gradient and an earlier layer
does too, as with the unused experts of a mixture. Not evaluated without an optimizer, or with fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_topmost_module, in_execution_order, pattern
from gradcheck_cli.diagnose.wording import count, list_names
from gradcheck_cli.records import Bools, Finding, ParameterInfo, Recording, Severity

FEWEST_STEPS = 3


@rule("GC104", "zero-gradient", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if not recording.run.has_optimizer:
        yield check.skip("the run has no optimizer, and layers that start at zero hold back gradients until an update")
        return
    first = first_update(recording)
    if first is None:
        yield check.skip("no step updated the parameters (each was skipped, or had a learning rate of 0)")
        return
    after = recording.statistics.steps > first
    if int(after.sum()) < FEWEST_STEPS:
        recorded = count(int(after.sum()), "step")
        yield check.skip(f"{recorded} recorded after the first update (step {first}), {FEWEST_STEPS} are needed")
        return
    zero, living = classify(recording, after)
    weights = [p for p in recording.trainable if is_matrix(p)]
    for layer, group in by_topmost_module([p for p in weights if p.name in zero], weights).items():
        yield report(recording, layer, group, zero, living, int(after.sum()))


def first_update(recording: Recording) -> int | None:
    """The first step that moved the parameters."""
    rates = np.nan_to_num(recording.series.lr).max(axis=1, initial=0.0)
    effective = np.flatnonzero(~recording.series.skipped & (rates > 0))
    return int(effective[0]) if len(effective) else None


def is_matrix(parameter: ParameterInfo) -> bool:
    return len(parameter.shape) >= 2


def classify(recording: Recording, after: Bools) -> tuple[set[str], set[str]]:
    """The parameters whose gradient is always zero on the rows `after`, and those for which it is not, by name."""
    had = recording.statistics.has_gradient[after]
    largest = recording.statistics.max_abs[after]
    zero = ((largest == 0) | ~had).all(axis=0) & (had.sum(axis=0) >= FEWEST_STEPS)
    living = (had & (largest > 0)).any(axis=0)
    names = [parameter.name for parameter in recording.parameters]
    return {names[i] for i in np.flatnonzero(zero)}, {names[i] for i in np.flatnonzero(living)}


def report(
    recording: Recording, layer: str, group: list[ParameterInfo], zero: set[str], living: set[str], steps: int
) -> Finding:
    owners = {p.module for p in group}
    vectors = [p.name for p in recording.trainable if not is_matrix(p) and p.module in owners]
    names = [p.name for p in group] + [name for name in vectors if name in zero]
    alive = [name for name in vectors if name in living]
    spared = spared_siblings(recording, group, living)
    while_others = f", while {list_names(spared, 2)} of the same kind {'gets' if len(spared) == 1 else 'get'} one"
    return check.finding(
        f"{list_names(names)}: the gradient is exactly zero on all {steps} recorded steps after the first update"
        + (while_others if spared else ""),
        choose_hint(recording, alive, spared),
        layer=layer,
        severity=Severity.WARNING if spared else Severity.ERROR,
        evidence={
            "parameters": names,
            "numel": sum(p.numel for p in group),
            "max_abs": 0.0,
            "limit": 0.0,
            "steps": steps,
            "fewest_steps": FEWEST_STEPS,
            "first_update": first_update(recording),
            "parameters_with_gradient": alive,
            "siblings_with_gradient": spared,
        },
    )


def choose_hint(recording: Recording, alive: list[str], spared: list[str]) -> str:
    if alive:
        cause = (
            f"a gradient does reach {list_names(alive, 2)}, so the input of this layer is exactly zero: look at what"
            " comes before it (dead ReLUs, a mask, a product with zero)"
        )
    elif spared:
        cause = "in a mixture of experts, no input is routed here: add a load-balancing loss; otherwise a dead branch"
    else:
        cause = (
            "likely dead ReLUs (lower the learning rate, He initialisation, LeakyReLU or GELU), a product with zero, a"
            " mask over everything, or an activation saturated until its slope is exactly 0"
        )
    if recording.run.precision == "fp16" and not recording.run.uses_scaler:
        return "fp16 without a GradScaler: gradients below 6e-8 become 0; use one, or bf16. Otherwise: " + cause
    return cause


def spared_siblings(recording: Recording, group: list[ParameterInfo], living: set[str]) -> list[str]:
    """Like-named weights that do get a gradient, if the backward pass also goes on to layers before this one.

    Where all before is dead too, this is no spare part of the model but the place where its gradient ends.
    """
    kinds = {pattern(p.name) for p in group}
    siblings = [p.name for p in recording.parameters if is_matrix(p) and p.name in living and pattern(p.name) in kinds]
    order = in_execution_order(recording, dict.fromkeys(p.module for p in recording.parameters))
    before = order[: min(order.index(p.module) for p in group)]
    goes_on = any(p.module in before for p in recording.parameters if p.name in living)
    return siblings if goes_on else []
