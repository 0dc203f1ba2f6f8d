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
from gradcheck_cli.diagnose.selection import by_topmost_module, pattern
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
        yield check.skip(
            f"{count(int(after.sum()), 'step')} recorded after the first update (step {first}), {FEWEST_STEPS} are needed"
        )
        return
    is_zero = find_zero(recording, after)
    trainable = [p for p in recording.parameters if p.requires_grad]
    weights = [p for p in trainable if len(p.shape) >= 2]
    dead = [p for p in weights if is_zero[p.name]]
    for layer, group in by_topmost_module(dead, weights).items():
        owners = {p.module for p in group} if layer != group[0].name else set()
        vectors = [p for p in trainable if len(p.shape) < 2 and p.module in owners]
        yield report(recording, layer, group, vectors, is_zero, after)


def first_update(recording: Recording) -> int | None:
    """The first step that moved the parameters."""
    rates = np.nan_to_num(recording.series.lr).max(axis=1, initial=0.0)
    effective = np.flatnonzero(~recording.series.skipped & (rates > 0))
    return int(effective[0]) if len(effective) else None


def find_zero(recording: Recording, after: Bools) -> dict[str, bool]:
    """By parameter: whether it had gradients on enough of the rows `after`, all of them exactly zero."""
    had = recording.statistics.has_gradient[after]
    zero = (recording.statistics.max_abs[after] == 0) | ~had
    dead = zero.all(axis=0) & (had.sum(axis=0) >= FEWEST_STEPS)
    return {parameter.name: bool(d) for parameter, d in zip(recording.parameters, dead, strict=True)}


def report(
    recording: Recording,
    layer: str,
    group: list[ParameterInfo],
    vectors: list[ParameterInfo],
    is_zero: dict[str, bool],
    after: Bools,
) -> Finding:
    names = [p.name for p in group] + [p.name for p in vectors if is_zero[p.name]]
    alive = [p.name for p in vectors if not is_zero[p.name] and got_gradient(recording, p, after)]
    spared = spared_siblings(recording, group, is_zero, after)
    steps = int(after.sum())
    message = f"{list_names(names)}: the gradient is exactly zero on all of the {steps} recorded steps after the first update"
    if spared:
        message += f", while {list_names(spared, 2)} of the same kind get{'s' if len(spared) == 1 else ''} one"
    return check.finding(
        message,
        choose_hint(recording, alive, spared),
        layer=layer,
        severity=Severity.WARNING if spared else Severity.ERROR,
        evidence={
            "parameters": names,
            "numel": sum(p.numel for p in group),
            "steps": steps,
            "fewest_steps": FEWEST_STEPS,
            "first_update": first_update(recording),
            "max_abs": 0.0,
            "parameters_with_gradient": alive,
            "siblings_with_gradient": spared,
        },
    )


def choose_hint(recording: Recording, alive: list[str], spared: list[str]) -> str:
    if alive:
        cause = (
            f"{list_names(alive, 2)} does get a gradient, so the input of this layer is exactly zero: look at what comes"
            " before it (dead ReLUs, a mask, a product with zero)"
        )
    elif spared:
        cause = "in a mixture of experts, no input is routed here: add a load-balancing loss; otherwise a dead branch"
    else:
        cause = (
            "likely dead ReLUs (lower the learning rate, He initialisation, LeakyReLU or GELU), a product with zero or a"
            " mask over everything, or an activation saturated until its slope is exactly 0"
        )
    if recording.run.precision == "fp16" and not recording.run.uses_scaler:
        return "fp16 without a GradScaler: gradients below 6e-8 become 0; use one, or bf16. Otherwise: " + cause
    return cause


def spared_siblings(
    recording: Recording, group: list[ParameterInfo], is_zero: dict[str, bool], after: Bools
) -> list[str]:
    """Like-named weights that do get a gradient, if the backward pass also goes on to layers before this one.

    Where all before is dead too, this is no spare part of the model but the place where its gradient ends.
    """
    kinds = {pattern(p.name) for p in group}
    living = [p for p in recording.parameters if not is_zero[p.name] and got_gradient(recording, p, after)]
    siblings = [p.name for p in living if len(p.shape) >= 2 and pattern(p.name) in kinds]
    order = {module.name: module.probe for module in recording.modules if module.probe is not None}
    place = min((order[p.module] for p in group if p.module in order), default=None)
    goes_on = place is None or any(order.get(p.module, place) < place for p in living)
    return siblings if goes_on else []


def got_gradient(recording: Recording, parameter: ParameterInfo, after: Bools) -> bool:
    column = recording.parameters.index(parameter)
    largest = recording.statistics.max_abs[after, column]
    return parameter.requires_grad and bool((largest > 0).any())
