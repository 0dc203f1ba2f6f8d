"""# GC103 unused-parameter

## What it detects

A trainable parameter to which no gradient comes back: `.grad` is None on every step, or on some of them.

## Why it matters

The parameter never learns. Weight decay leaves it alone too, because the optimizer passes over a parameter whose
gradient is None, so it keeps its initial value while the model seems to train. Under DistributedDataParallel the
run stops with "Expected to have finished reduction" (see `find_unused_parameters` in the documentation of
`torch.nn.parallel.DistributedDataParallel`).

## How to fix

1. If the layer runs: look between it and the loss for `.detach()`, `.data`, `torch.no_grad()`, `.item()`, a trip
   through numpy, `argmax` or an integer cast, and for an output that is computed and then left out of the loss.
2. If it never runs: call it in `forward`, or delete it.
3. If it is meant to stay as it is: freeze it with `requires_grad_(False)`, so that this is stated.
4. Expert and alternating-loss models leave some parameters out on some steps by design: nothing to fix.

## How it decides

`requires_grad` is set and the gradient was None on every recorded step. One finding for the outermost module of
which no trainable parameter got a gradient. It is an error where the module ran in the forward pass (its output was
seen, and still nothing came back) and a warning where it never ran. Inside a torch.compile'd region nobody sees a
module run, so there it is a warning and says so; so is a parameter that only the optimizer holds, because the layer
was replaced after the optimizer was made. A gradient that was None on some steps only is info, with the
share of steps. Not evaluated without a recorded step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_topmost_module, enclosing, is_within
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Finding, ModuleInfo, ParameterInfo, Recording, Severity

CALLS_NO_CHILD = "MultiheadAttention"
"""This module uses its child's weight without calling the child."""


OUTSIDE = (
    Severity.WARNING,
    ": the optimizer holds it, but it is not part of the model",
    "make the optimizer after the model is complete: a layer that was replaced since is still in it; parameters of a"
    " criterion belong into the loss",
)


@rule("GC103", "unused-parameter", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    rows = len(recording.statistics.steps)
    if not rows:
        yield check.skip("no step was recorded")
        return
    counts = recording.statistics.has_gradient.sum(axis=0)
    present = {parameter.name: int(n) for parameter, n in zip(recording.parameters, counts, strict=True)}
    trainable = [parameter for parameter in recording.parameters if parameter.requires_grad]
    never = [parameter for parameter in trainable if present[parameter.name] == 0]
    sometimes = [parameter for parameter in trainable if 0 < present[parameter.name] < rows]
    for layer, group in by_topmost_module(never, trainable).items():
        yield report_never(recording, layer, group)
    for layer, group in by_topmost_module(sometimes, trainable).items():
        yield report_sometimes(layer, group, [present[parameter.name] for parameter in group], rows)


def report_never(recording: Recording, layer: str, group: list[ParameterInfo]) -> Finding:
    modules = [module for module in recording.modules if concerns(module, layer, group[0])]
    compiled = any(module.compiled for module in modules)
    called = any(module.probe is not None for module in modules)
    reached = any(gradient_reached(recording, module) for module in modules)
    rows = len(recording.statistics.steps)
    whole = group[0].name != layer or len(group) > 1
    subject = f"{layer} ({count(len(group), 'parameter')})" if whole else layer
    evidence = {
        "parameters": [parameter.name for parameter in group],
        "numel": sum(parameter.numel for parameter in group),
        "recorded_steps": rows,
        "steps_with_gradient": 0,
        "called": called,
        "gradient_reached_output": reached,
        "compiled": compiled,
    }
    message = f"{subject} got no gradient on any of {count(rows, 'recorded step')}"
    foreign = all(module.name != group[0].module for module in recording.modules)
    severity, detail, hint = OUTSIDE if foreign else explain(compiled, called, reached)
    return check.finding(message + detail, hint, layer=layer, severity=severity, evidence=evidence)


def explain(compiled: bool, called: bool, reached: bool) -> tuple[Severity, str, str]:
    """Severity, the message's end and the hint."""
    freeze = "; if it is meant to stay as it is, freeze it with requires_grad_(False)"
    if compiled:
        return (
            Severity.WARNING,
            "; it is inside a torch.compile'd region, where only the gradient can be observed, not whether it ran",
            "run once without torch.compile to see whether it runs; look for .detach(), no_grad() or an output that"
            " the loss does not use" + freeze,
        )
    if not called:
        return Severity.WARNING, " and never ran in the forward pass", "call it in forward(), or delete it" + freeze
    if reached:
        return (
            Severity.ERROR,
            ", although it ran and a gradient reached its output: it is cut off within",
            "inside the layer, look for a weight used through .data, .detach(), no_grad() or a copy" + freeze,
        )
    return (
        Severity.ERROR,
        ", although it ran in the forward pass: it is cut off from the loss",
        "between this layer and the loss, look for .detach(), .data, torch.no_grad(), .item(), a trip through numpy"
        " or an argmax, and for an output that the loss does not use" + freeze,
    )


def report_sometimes(layer: str, group: list[ParameterInfo], present: list[int], rows: int) -> Finding:
    fewest, most = min(present), max(present)
    times = str(fewest) if fewest == most else f"{fewest} to {most}"
    return check.finding(
        f"{layer} got a gradient on {times} of {rows} recorded steps and none on the others",
        "expected of experts, alternating losses and layer drop; otherwise look for a branch in forward() that"
        " leaves this layer out",
        layer=layer,
        severity=Severity.INFO,
        evidence={
            "parameters": [parameter.name for parameter in group],
            "steps_with_gradient": fewest,
            "recorded_steps": rows,
            "fraction": fewest / rows,
        },
    )


def concerns(module: ModuleInfo, layer: str, parameter: ParameterInfo) -> bool:
    """Whether what is known of `module` tells whether `layer` (a module, or the parameter itself) ran."""
    owner = parameter.module if parameter.name == layer else layer
    parents = enclosing(owner)[:-1]
    if module.type == CALLS_NO_CHILD and module.name == (parents[-1] if parents else ""):
        return True
    return is_within(module.name, owner) if owner else module.name == ""


def gradient_reached(recording: Recording, module: ModuleInfo) -> bool:
    if module.probe is None:
        return False
    return bool(np.isfinite(recording.probes.output_grad_rms[:, module.probe]).any())
