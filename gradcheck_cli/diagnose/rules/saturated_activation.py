"""# GC602 saturated-activation

## What it detects

Activation functions between the layers (sigmoid, tanh, softsign, hardtanh, hardsigmoid, ReLU6) most of whose inputs
lie where the function is flat.

## Why it matters

Where the function is flat its derivative is next to zero, and so is every gradient that has to pass: the layers before
learn nothing from these elements, and as they don't learn they don't get out again. The output hardly depends on the
input there. Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
section 3.

## How to fix

1. Bring the inputs of the function into the range of about -1 to 1: standardise the data, initialise weights by
   `nn.init.xavier_normal_`, biases by `nn.init.zeros_`.
2. Normalise before the function (`nn.LayerNorm`, `nn.BatchNorm2d`).
3. Use ReLU or GELU between the layers.

## How it decides

An element is saturated where the derivative is under 5 % of its maximum (ReLU6: where it is cut off at 6). The fraction
of saturated elements is the median over the probed steps; healthy networks measure 0 to 25 %. More than 50 % is a
warning for a group of like layers, or information if the loss clearly falls and it was less at first. More than 90 %
in at least half of the group is an error where GC101 or GC102 warn of the depth slope.

Gates and outputs may saturate and be healthy: a forget gate that remembers, a classifier that is sure. So functions
count only where they surely stand between layers: in a sequence before another layer, or where the size of the next
layer's input is that of a saturated tanh. All others count where GC101 or GC102 warn of the depth slope and the median
of their group is above 50 %. Softmax is never judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from gradcheck_cli.diagnose.activations import (
    caller_of,
    find_containers,
    find_feeding_layers,
    number_of,
    parent_of,
    siblings_behind,
)
from gradcheck_cli.diagnose.flow import flows, loss_falls
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.init_scale import severity_of
from gradcheck_cli.diagnose.selection import enclosing, pattern
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Recording, Severity
from gradcheck_cli.signals import SATURATING, Site

MOST = 0.9
HALF = 0.5
TANH_SQUARE = 0.95
"""The least square of a saturated tanh."""


@dataclass(frozen=True)
class Saturation:
    """How saturated one function is: median over the probed steps, and at first; `layer` feeds it, or calls it."""

    site: Site
    layer: str
    fraction: float
    at_first: float


@rule("GC602", "saturated-activation", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if reason := why_not(recording):
        yield check.skip(reason)
        return
    slopes = [severity for flow in flows(recording) if (severity := severity_of(flow, recording))]
    steep = any(severity is not Severity.INFO for severity in slopes)
    groups: dict[tuple[str, str], list[Saturation]] = {}
    for one in measure_saturation(recording):
        groups.setdefault((pattern(one.layer), one.site.kind), []).append(one)
    for group in groups.values():
        saturated = [one for one in group if one.fraction > HALF]
        if not (steep and np.median([one.fraction for one in group]) > HALF):
            saturated = [one for one in saturated if is_hidden(recording, one)]
        if saturated:
            mostly = steep and float(np.mean([one.fraction > MOST for one in group])) >= HALF
            calm = loss_falls(recording.series.loss) and max(one.at_first for one in saturated) <= HALF
            severity = Severity.ERROR if mostly else Severity.INFO if calm else Severity.WARNING
            yield finding(saturated, severity, steep)


def why_not(recording: Recording) -> str:
    """Why activations can't be judged, in words; "" where they can."""
    if recording.signals is None:
        return "the recording has no signals of the activations, it was made by an older version"
    if any(module.compiled for module in recording.modules):
        return "torch.compile hides the activations; --eager shows them"
    return "" if len(recording.probes.steps) else "no step was probed"


def measure_saturation(recording: Recording) -> Iterator[Saturation]:
    """Every function that can saturate and was measured."""
    assert recording.signals is not None
    table, feeding = recording.signals.activations, find_feeding_layers(recording)
    for site, values in zip(table.sites, table.saturated.T, strict=True):
        known = values[np.isfinite(values)]
        if site.kind in SATURATING and site.kind != "softmax" and known.size:
            yield Saturation(site, feeding[site], median(known), float(known[0]))


def is_hidden(recording: Recording, one: Saturation) -> bool:
    """Whether a function surely stands between layers."""
    is_module = caller_of(one.site, find_containers(recording)) != one.site.module
    return is_between(recording, one.site.module) if is_module else feeds_next(recording, one)


def is_between(recording: Recording, name: str) -> bool:
    """Whether a module stands in a sequence, or a sequence of sequences, with a layer behind it."""
    behind = {sibling.name for sibling in siblings_behind(recording, name)}
    if any(not behind.isdisjoint(enclosing(layer.name)) for layer in recording.probed):
        return True
    return number_of(name) is not None and is_between(recording, parent_of(name))


def feeds_next(recording: Recording, one: Saturation) -> bool:
    """Whether the layer after the one that feeds a tanh gets what the tanh returns, by its size."""
    assert recording.signals is not None
    names = [module.name for module in recording.probed]
    if one.site.kind != "tanh" or one.layer not in names[:-1]:
        return False
    rms = float(recording.signals.layers.input_rms[0, names.index(one.layer) + 1])
    return sqrt(TANH_SQUARE * max(one.at_first, 0.0)) <= rms <= 1


def finding(saturated: Sequence[Saturation], severity: Severity, steep: bool) -> Outcome:
    """The finding for the saturated functions of one group."""
    first, others = saturated[0], len(saturated) - 1
    fractions = [one.fraction for one in saturated]
    where = f"{first.site.kind} behind {first.layer}" if first.layer else first.site.kind
    like = f", and {min(fractions):.0%} or more at {count(others, 'place')} like it" if others else ""
    return check.finding(
        f"{first.fraction:.0%} of the elements of the {where} are saturated{like}: hardly any gradient passes there",
        hint_for(first.site.kind),
        severity=severity,
        layer=(pattern(first.layer) if others else first.layer) or None,
        evidence={
            "function": first.site.kind,
            "layers": list(dict.fromkeys(one.layer for one in saturated)),
            "saturated": fractions,
            "saturated_at_first": [one.at_first for one in saturated],
            "depth_slope_is_abnormal": steep,
            "error_above": MOST,
            "warning_above": HALF,
        },
    )


def hint_for(kind: str) -> str:
    """The cures, most effective first."""
    if kind == "relu6":
        return "the inputs are far beyond 6: standardise the data, begin with smaller weights, or normalise before it"
    return (
        "bring its inputs to a size of about one: standardise the data, nn.init.xavier_normal_ for the weights,"
        " zero for the biases; or normalise before it; or ReLU or GELU instead"
    )
