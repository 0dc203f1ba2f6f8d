"""# GC108 tiny-gradient

## What it detects

Parameters whose gradient norm is typically below a fixed limit, 1e-8 unless `--tiny` says otherwise, but not zero.

## Why it matters

With plain SGD such a parameter hardly moves; with Adam, gradients below its `eps` (1e-8) lose their adaptive step; in
fp16 they vanish. But the norm moves with the scale of the loss: many healthy networks have such layers, so this is
for your information. GC101 judges by comparing the layers with one another.

## How to fix

1. Nothing, if no other rule complains and the layer's update ratio is near those of the others.
2. If GC101 fires as well, follow its advice: initialisation, normalisation, residual connections.
3. Do not divide the loss twice (by the batch and again by the accumulation steps).
4. With Adam, a smaller `eps`, or a loss multiplied by a constant.

## How it decides

The median over the recorded steps of the parameter's gradient norm lies between 0 and the limit, both excluded (exact
zeros are GC104). A parameter of one dimension is named only if the weights beside it are tiny too or there are none,
because biases before a normalisation get nothing but rounding. One finding a module; beyond three modules one for all.
Not evaluated without a recorded gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_module
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.diagnose.wording import list_names
from gradcheck_cli.records import Finding, ParameterInfo, Recording, Severity

MOST_FINDINGS = 3


@rule("GC108", "tiny-gradient", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    medians = median_norms(recording)
    if not medians:
        yield check.skip("no finite gradient of a parameter was recorded")
        return
    tiny = {name for name, norm in medians.items() if 0 < norm < limits.tiny}
    found = {
        module: [p for p in own if p.name in tiny]
        for module, own in by_module(recording.trainable).items()
        if is_tiny(own, tiny)
    }
    if len(found) > MOST_FINDINGS:
        yield report(None, [p for group in found.values() for p in group], medians, limits.tiny)
        return
    for module, group in found.items():
        yield report(module, group, medians, limits.tiny)


def median_norms(recording: Recording) -> dict[str, float]:
    """Of each parameter that had a finite gradient: the median of its norm."""
    norms = np.where(recording.statistics.has_gradient, recording.statistics.norm, np.nan)
    columns = {p.name: norms[np.isfinite(norms[:, i]), i] for i, p in enumerate(recording.parameters)}
    return {name: median(column) for name, column in columns.items() if len(column)}


def is_tiny(own: list[ParameterInfo], tiny: set[str]) -> bool:
    """Whether a module's tiny gradients say something: not those of a bias whose weight has others."""
    weights = [p for p in own if len(p.shape) >= 2] or own
    return any(p.name in tiny for p in weights)


def report(module: str | None, group: list[ParameterInfo], medians: dict[str, float], limit: float) -> Finding:
    group = sorted(group, key=lambda p: medians[p.name])
    names = [p.name for p in group]
    smallest = medians[names[0]]
    where = f" in {len({p.module for p in group})} modules" if module is None else ""
    return check.finding(
        f"gradient norm below {limit:.3g}{where} (median over the steps): {list_names(names)};"
        f" the smallest is {smallest:.3g}",
        "nothing to do if the layer's update ratio is near those of the others: the norm moves with the scale of the"
        " loss; otherwise see what GC101 says, and do not divide the loss twice",
        layer=module,
        evidence={
            "parameters": names,
            "median_norms": [medians[name] for name in names],
            "limit": limit,
        },
    )
