"""How activation gradients and activations change with depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcheck_cli.diagnose.selection import pattern
from gradcheck_cli.diagnose.statistics import mann_kendall, median, theil_sen
from gradcheck_cli.records import Floats, ModuleInfo, Recording

FEWEST_LAYERS = 4
FEWEST_PROBES = 3
SMALLEST = 1e-45  # the smallest float32: an RMS of exactly 0 is at most that
LOSS_FALL = 0.1
SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class Flow:
    """One group of like layers, in execution order, over the probed steps.

    `backward` is the depth slope D of the activation gradient's RMS, in decades over the whole group: positive where
    it shrinks toward the input. `forward` is the slope A of the output's RMS on the first probed step, before
    training moves the biases: positive where it grows toward the output. `first_rms` and `last_rms` are the median
    gradient RMS at both ends.
    """

    group: str
    layers: tuple[str, ...]
    backward: float
    forward: float
    first_rms: float
    last_rms: float
    probes: int

    @property
    def per_layer(self) -> float:
        """Decades from one layer to the next, without sign."""
        return abs(self.backward) / (len(self.layers) - 1)

    @property
    def evidence(self) -> dict[str, Any]:
        """The numbers behind a finding."""
        return {
            "group": self.group,
            "layers": len(self.layers),
            "first_layer": self.layers[0],
            "last_layer": self.layers[-1],
            "first_output_grad_rms": self.first_rms,
            "last_output_grad_rms": self.last_rms,
            "depth_slope_decades": self.backward,
            "decades_per_layer": self.per_layer,
            "forward_slope_decades": self.forward,
            "probes": self.probes,
        }


def flows(recording: Recording) -> list[Flow]:
    """The flow through each group of like layers that has FEWEST_LAYERS layers with a gradient.

    Layers are alike when type and name agree, digits left out; where no such group is large enough, when their type
    agrees. The slope is Theil and Sen's over log10 RMS against the position in the group, times the group's length
    less one: the median over the probed steps.
    """
    named = [measure(recording, group, members) for group, members in like_layers(recording, by_name=True)]
    found = [flow for flow in named if flow]
    if not found:
        typed = [measure(recording, group, members) for group, members in like_layers(recording, by_name=False)]
        found = [flow for flow in typed if flow]
    return found


def like_layers(recording: Recording, by_name: bool) -> list[tuple[str, list[int]]]:
    """Columns of the probe arrays by name pattern and type, or by type alone."""
    kinds: dict[tuple[str, str], list[int]] = {}
    for column, module in enumerate(recording.probed):
        if recording.probes.output_grad_rms.size and np.isfinite(recording.probes.output_grad_rms[:, column]).any():
            kinds.setdefault((pattern(module.name) if by_name else "", module.type), []).append(column)
    return [(name or f"all {kind} layers", columns) for (name, kind), columns in kinds.items()]


def measure(recording: Recording, group: str, columns: Sequence[int]) -> Flow | None:
    """The flow through the layers at `columns`; None where there are too few layers or probed steps."""
    gradient = recording.probes.output_grad_rms[:, columns]
    output = recording.probes.output_rms[:, columns]
    complete = np.isfinite(gradient).sum(axis=1) >= FEWEST_LAYERS
    if len(columns) < FEWEST_LAYERS or complete.sum() < FEWEST_PROBES:
        return None
    modules: Sequence[ModuleInfo] = [recording.probed[column] for column in columns]
    ends = np.nanmedian(gradient[complete][:, [0, -1]], axis=0) if complete.any() else np.full(2, np.nan)
    return Flow(
        group=group,
        layers=tuple(module.name or module.type for module in modules),
        backward=median_slope(gradient[complete]),
        forward=median_slope(output[complete][:1]),
        first_rms=float(ends[0]),
        last_rms=float(ends[1]),
        probes=int(complete.sum()),
    )


def median_slope(rms: Floats) -> float:
    """Median over the rows of rms (rows, layers) of the Theil-Sen slope of log10, in decades over all layers."""
    with np.errstate(invalid="ignore"):
        logs = np.log10(np.maximum(rms, SMALLEST))
    slope = float(np.median([theil_sen(row) for row in logs]))
    return slope * (int(rms.shape[1]) - 1)


def why_none(recording: Recording) -> str:
    """Why no flow could be measured, in words."""
    if len(recording.probes.steps) < FEWEST_PROBES:
        return f"modules were probed on {len(recording.probes.steps)} steps, {FEWEST_PROBES} are needed"
    if any(module.compiled for module in recording.modules):
        return "torch.compile hides the layers; --eager shows them"
    return f"fewer than {FEWEST_LAYERS} layers of a kind got a gradient"


def loss_falls(loss: Floats) -> bool:
    """Whether the loss clearly falls: Mann-Kendall at 1 %, and a tenth of its size from first to last quarter."""
    finite = loss[np.isfinite(loss)]
    quarter = len(finite) // 4
    if quarter < FEWEST_PROBES:
        return False
    start, end = median(finite[:quarter]), median(finite[-quarter:])
    trend = mann_kendall(finite)
    return trend.s < 0 and trend.p < SIGNIFICANCE and start - end > LOSS_FALL * abs(start)
