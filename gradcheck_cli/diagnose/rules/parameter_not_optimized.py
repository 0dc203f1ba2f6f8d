"""# GC106 parameter-not-optimized

## What it detects

A trainable parameter that receives gradients but belongs to no optimizer group.

## Why it matters

Its gradient is computed on every step, costs time and memory, enters the global norm by which the others are
clipped, and is then thrown away: the parameter keeps its initial value for ever. Nothing fails and the loss may
even fall, because the rest of the network learns around it.

## How to fix

1. Make the optimizer from all parameters: `AdamW(model.parameters())`, after the last layer has been added.
2. One that is released on the way, with `requires_grad_(True)`, has to be given to an optimizer that was made
   without it: `optimizer.add_param_group({"params": layer.parameters()})`.
3. With parameter groups, check that the groups together cover `model.named_parameters()`.
4. If the parameter is meant to stay as it is, freeze it: `parameter.requires_grad_(False)`.

## How it decides

`requires_grad` is set, from the start or since the parameter was released, a gradient was recorded in at least one
step, and no group of the optimizer holds the parameter at the end. Not evaluated without an optimizer. One finding a
module.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_module
from gradcheck_cli.records import Recording, Severity


@rule("GC106", "parameter-not-optimized", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if not recording.run.has_optimizer:
        yield check.skip("the run has no optimizer")
        return
    reached = {recording.parameters[column] for column in recording.statistics.has_gradient.any(axis=0).nonzero()[0]}
    left_out = [one for one in recording.trainable if one in reached and not one.in_optimizer]
    for module, parameters in by_module(left_out).items():
        names = [parameter.name for parameter in parameters]
        yield check.finding(
            f"{', '.join(names)} get{'s' if len(names) == 1 else ''} gradients but no optimizer holds them,"
            " so they never change",
            "build the optimizer from model.parameters() after the last layer was added, give it what is"
            " released later with add_param_group, or freeze them with requires_grad_(False) if that is what you want",
            layer=module,
            evidence={"parameters": names, "numel": sum(parameter.numel for parameter in parameters)},
        )
