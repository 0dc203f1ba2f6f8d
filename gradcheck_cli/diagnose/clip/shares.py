"""Which layers and which optimizer groups make the global gradient norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradcheck_cli.clip_advice import ClipGroup, ClipLayer, Interval
from gradcheck_cli.diagnose.clip.replays import joint_norms
from gradcheck_cli.diagnose.selection import by_module
from gradcheck_cli.records import Bools, Floats, Ints, ParameterInfo, Recording

DOMINANT = 0.95
"""Share of the squared norm. The layer's own norm is then at least 0.975 of the global one: sqrt(0.95)."""

LEAST_LAYERS = 4


def share_by_layer(recording: Recording, kept_steps: Ints, max_norm: float) -> tuple[ClipLayer, ...]:
    """Shares of the squared global norm of the modules that own parameters, largest first.

    Over the rows of those of `kept_steps` (n,) that have statistics and a gradient. All parameters with a gradient
    count, as they do in the global norm, whether an optimizer has them or not; layers without one are left out.
    """
    norms, clipped = kept_norms(recording, kept_steps, max_norm)
    squares = shares_of_square(norms)
    columns = {parameter.name: column for column, parameter in enumerate(recording.parameters)}
    layers = []
    for name, parameters in by_module(recording.parameters).items():
        own = [columns[parameter.name] for parameter in parameters]
        if norms[:, own].any():
            share = squares[:, own].sum(axis=1)
            layers.append(ClipLayer(name, median(share), median(share[clipped])))
    return tuple(sorted(layers, key=lambda layer: -layer.share))


def share_by_group(
    recording: Recording, kept_steps: Ints, quantile: Callable[[Floats], tuple[float, Interval | None]], max_norm: float
) -> tuple[ClipGroup, ...]:
    """Each optimizer group's own max_norm, and its share of the squared global norm, in the order of the groups.

    `quantile` gives max_norm and interval of the group's joint norms (n,), in order of time, over the kept steps on
    which it has a gradient; a group that has none is left out. Parameters without a group are part of the global norm.
    """
    norms, clipped = kept_norms(recording, kept_steps, max_norm)
    squares = shares_of_square(norms)
    groups = []
    for index, own in columns_by_group(recording.parameters).items():
        joint = joint_norms(norms[:, own])
        if joint.any():
            share = squares[:, own].sum(axis=1)
            value, interval = quantile(joint[joint > 0])
            numel = sum(recording.parameters[column].numel for column in own)
            groups.append(ClipGroup(index, len(own), numel, value, interval, median(share), median(share[clipped])))
    return tuple(groups)


def columns_by_group(parameters: Sequence[ParameterInfo]) -> dict[int, list[int]]:
    """The parameters' columns by their optimizer group, in the order of the groups."""
    grouped = sorted({parameter.group for parameter in parameters if parameter.group is not None})
    return {group: [i for i, parameter in enumerate(parameters) if parameter.group == group] for group in grouped}


def kept_norms(recording: Recording, kept_steps: Ints, max_norm: float) -> tuple[Floats, Bools]:
    """Gradient norms (rows, parameters), 0 where there is none, and whether the global one exceeds max_norm (rows,).

    The rows are those of `kept_steps` (n,) that have statistics and a global norm above 0.
    """
    statistics = recording.statistics
    norms = np.where(statistics.has_gradient, statistics.norm, 0.0)
    rows = np.isin(statistics.steps, kept_steps) & norms.any(axis=1)
    return norms[rows], recording.series.grad_norm[statistics.steps[rows]] > max_norm


def shares_of_square(norms: Floats) -> Floats:
    """Each norm's share of the sum of squares of its row, of norms (rows, tensors) with no row of zeros."""
    squares = (norms / norms.max(axis=1, keepdims=True, initial=0.0)) ** 2
    shares: Floats = squares / squares.sum(axis=1, keepdims=True)
    return shares


def median(values: Floats) -> float:
    """Median of values (n,), NaN without any."""
    return float(np.median(values)) if len(values) else math.nan


def dominant_layer(layers: Sequence[ClipLayer]) -> str | None:
    """The layer that alone decides what is clipped, None where none does: DOMINANT of the squared norm at the median.

    More than half is nothing unusual: the last layer of a healthy model makes 0.7 to 0.9 of it for hundreds of steps.
    With fewer than LEAST_LAYERS (an embedding, a body and a head) so much of it in one says little.
    """
    if len(layers) < LEAST_LAYERS:
        return None
    first = max(layers, key=lambda layer: layer.share)
    return first.name if first.share >= DOMINANT else None


def looseness(groups: Sequence[ClipGroup]) -> float | None:
    """sqrt(K) for K groups, None for fewer than two: each clipped apart to c, the joint norm can reach sqrt(K) c."""
    return math.sqrt(len(groups)) if len(groups) > 1 else None
