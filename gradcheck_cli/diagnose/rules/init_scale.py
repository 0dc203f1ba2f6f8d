"""# GC601 init-scale

## What it detects

Weights that begin so small that the gradient vanishes on its way through the layers, or so large that it explodes.

## Why it matters

Each layer multiplies the signal, and on the way back the gradient, by about std x sqrt(fan-in). A factor that is not
near one is raised to the power of the number of layers: 0.1 over ten layers is 1e-10. No learning rate suits the first
and the last layer then. Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks"
(2010), section 4.2; He et al., "Delving deep into rectifiers" (2015), section 2.2.

## How to fix

1. Initialise for the function that follows the layer: `nn.init.kaiming_normal_(m.weight, nonlinearity="relu")` before
   ReLU, GELU and SiLU, `nn.init.xavier_normal_(m.weight)` before tanh and sigmoid,
   `nn.init.kaiming_normal_(m.weight, nonlinearity="linear")` (LeCun) before nothing and before SELU; with
   `nn.init.zeros_(m.bias)`. PyTorch's default for `nn.Linear` and `nn.Conv2d` is 0.41 times He: enough for a few
   layers only.
2. Or make the scale irrelevant by normalisation between the layers (`nn.LayerNorm`, `nn.BatchNorm2d`).

## How it decides

For each group of like layers whose depth slope GC101 or GC102 reports, each layer's weight before the first step is
compared with the right initialisation in two ways: the standard deviation (He, sqrt(2 / fan-in); Xavier, sqrt(2 /
(fan-in + fan-out)); LeCun, sqrt(1 / fan-in)), and the gain, RMS of the output without the bias over RMS of the input,
on the first probed step. Where both are too small it is the weaker of the two that counts, in decades, where both are
too large the stronger, else nothing. Their sum over the layers between the group's first and last must make at least
half of the slope, and the group's median must be off by a factor of 1.2. A deep network of sigmoids with PyTorch's
default initialisation measures 0.28 of the slope and stays silent here: there it is the slope of the function that
shrinks the gradient, no initialisation helps.

Layers before a normalisation do not count, nor do small weights in residual blocks whose branch is less than half of
their output. The severity is that of GC101 or GC102. Not evaluated for weights that come from a checkpoint;
where there is no slope to explain, GC101 says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from gradcheck_cli.diagnose.flow import Flow, flows, loss_falls
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules import exploding_gradient, vanishing_gradient
from gradcheck_cli.diagnose.scale import Scale, effect, explain, measure_scales, passing_blocks
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Finding, Recording, Severity

SHARE = 0.5
FACTOR = 1.2
CURES = {
    "He": 'nn.init.kaiming_normal_(m.weight, nonlinearity="relu")',
    "Xavier": "nn.init.xavier_normal_(m.weight)",
    "LeCun": 'nn.init.kaiming_normal_(m.weight, nonlinearity="linear")',
}


@rule("GC601", "init-scale", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if reason := why_not(recording):
        yield check.skip(reason)
        return
    abnormal = [(flow, severity) for flow in flows(recording) if (severity := severity_of(flow, recording))]
    if not abnormal:
        return
    scales, passing = measure_scales(recording), passing_blocks(recording)
    for flow, severity in abnormal:
        explained = explain(flow.layers, scales, passing)
        off = layers_off(flow, scales, passing, explained)
        if off and explained / growth_of(flow) >= SHARE:
            yield finding(flow, severity, off, explained)


def why_not(recording: Recording) -> str:
    """Why initial weights can't be judged, in words; "" where they can."""
    if recording.signals is None:
        return "the recording has no signals of the layers, it was made by an older version"
    if recording.run.checkpoint:
        return "the weights come from a checkpoint, not from an initialisation"
    return ""


def severity_of(flow: Flow, recording: Recording) -> Severity | None:
    """The severity that GC101 or GC102 give to this flow; None where both its slopes are normal."""
    if flow.backward >= vanishing_gradient.WARNING:
        if loss_falls(recording.series.loss):
            return Severity.INFO
        return Severity.ERROR if flow.backward >= vanishing_gradient.ERROR else Severity.WARNING
    if flow.backward <= exploding_gradient.WARNING:
        norms = sum("BatchNorm" in module.type for module in recording.modules)
        outcome = exploding_gradient.of_gradient(flow, norms)
        return outcome.severity if isinstance(outcome, Finding) else None
    return Severity.ERROR if flow.forward >= exploding_gradient.FORWARD else None


def growth_of(flow: Flow) -> float:
    """Decades by which gradient or signal grow from layer to layer, by the abnormal one of the two slopes."""
    grows = vanishing_gradient.WARNING > flow.backward > exploding_gradient.WARNING
    return flow.forward if grows else -flow.backward


def layers_off(flow: Flow, scales: dict[str, Scale], passing: Collection[str], explained: float) -> list[Scale]:
    """The group's layers that are off in the sense of what is explained; none where their median is not off enough."""
    own = [scales[layer] for layer in flow.layers if layer in scales]
    sense = float(np.sign(explained))
    excess = [sense * effect(scale, passing) for scale in own]
    if not own or not np.median(excess) >= np.log10(FACTOR):
        return []
    return [scale for scale, decades in zip(own, excess, strict=True) if decades >= np.log10(FACTOR)]


def finding(flow: Flow, severity: Severity, off: Sequence[Scale], explained: float) -> Outcome:
    """The finding for a group; its message names the first layer that is off."""
    first, size = off[0], "small" if explained < 0 else "large"
    return check.finding(
        describe(flow, off, explained),
        f"the weights begin too {size}: {CURES[first.right]} and nn.init.zeros_(m.bias) for each of them;"
        " or normalise between the layers, which makes the scale irrelevant",
        severity=severity,
        layer=flow.group,
        evidence={
            "group": flow.group,
            "parameters": [scale.parameter for scale in off],
            "initialisation": first.right,
            "std": [scale.std for scale in off],
            "right_std": [scale.right_std for scale in off],
            "gain": [scale.gain if np.isfinite(scale.gain) else None for scale in off],
            "right_gain": [scale.right_gain for scale in off],
            "depth_slope_decades": flow.backward,
            "forward_slope_decades": flow.forward,
            "explained_decades": -explained,
            "share_at_least": SHARE,
            "factor_at_least": FACTOR,
        },
    )


def describe(flow: Flow, off: Sequence[Scale], explained: float) -> str:
    """What the weights are, what they should be, and what follows from that."""
    first, others = off[0], len(off) - 1
    like = f", and {count(others, 'layer')} like it as well" if others else ""
    slope = abs(growth_of(flow))
    what = "gradient" if growth_of(flow) == -flow.backward else "signal"
    course = "shrinks toward the input" if flow.backward > 0 else "grows toward the input"
    return (
        f"{first.parameter} begins with std {first.std:.2g}, {first.right} would be {first.right_std:.2g}{like}: that"
        f" makes {min(abs(explained), slope):.1f} of the {slope:.1f} decades by which the {what}"
        f" {course if what == 'gradient' else 'grows through the layers'}"
    )
