"""# GC106 parameter-not-optimized

## What it detects

A trainable parameter that receives gradients but belongs to no optimizer group.

## Why it matters

Its gradient is computed on every step, costs time and memory, enters the global norm by which the others are
clipped, and is then thrown away: the parameter keeps its initial value for ever. Nothing fails and the loss may
even fall, because the rest of the network learns around it.

## How to fix

1. Make the optimizer from all parameters: `AdamW(model.parameters())`, after the last layer has been added.
2. With parameter groups, check that the groups together cover `model.named_parameters()`.
3. If the parameter is meant to stay as it is, freeze it: `parameter.requires_grad_(False)`.

## How it decides

`requires_grad` is set, a gradient was recorded in at least one step, and no group of the optimizer holds the
parameter. Not evaluated without an optimizer. One finding a module.
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
    left_out = [
        parameter
        for index, parameter in enumerate(recording.parameters)
        if parameter.requires_grad
        and not parameter.in_optimizer
        and bool(recording.statistics.has_gradient[:, index].any())
    ]
    for module, parameters in by_module(left_out).items():
        names = [parameter.name for parameter in parameters]
        yield check.finding(
            f"{', '.join(names)} get{'s' if len(names) == 1 else ''} gradients but no optimizer holds them,"
            " so they never change",
            "build the optimizer from model.parameters() after the last layer was added, or freeze them with"
            " requires_grad_(False) if that is what you want",
            layer=module,
            evidence={"parameters": names, "numel": sum(parameter.numel for parameter in parameters)},
        )
