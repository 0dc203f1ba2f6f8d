"""The scale at which weights begin, against the one that keeps the size of the signal from layer to layer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import log10, sqrt

import numpy as np

from gradcheck_cli.diagnose.activations import find_families
from gradcheck_cli.diagnose.selection import enclosing
from gradcheck_cli.records import Recording

SMALLEST = 1e-45
PASSED_ON = 0.5


@dataclass(frozen=True)
class Scale:
    """One layer's weight before the first step.

    `std` is its elements', `gain` the RMS of the layer's output, without its bias, over that of its input on the first
    probed step, `right_std` and `right_gain` what they would be under the initialisation that is `right` for what
    follows: He (2015, equation 10) before ReLU and its kin, Xavier (Glorot and Bengio 2010, equation 12) before tanh
    and sigmoid, LeCun (1998, section 4.6) before nothing.
    """

    layer: str
    parameter: str
    right: str
    std: float
    right_std: float
    gain: float
    right_gain: float

    @property
    def excess(self) -> float:
        """Decades by which the weight lets the signal grow (positive) or shrink in comparison to the right one.

        Weights and signal must agree, else 0: a layer may scale its weights when it is called. Where both shrink it is
        the weaker of the two, as the signal may consist of noise beside the bias; where both grow, the stronger, as
        weights whose mean is not 0 let the signal grow more than their spread says.
        """
        of_weights = log10(max(self.std, SMALLEST) / self.right_std)
        if not np.isfinite(self.gain):
            return of_weights
        of_signal = log10(max(self.gain, SMALLEST) / self.right_gain)
        return max(of_weights, of_signal) if of_weights * of_signal > 0 else 0.0


def measure_scales(recording: Recording) -> dict[str, Scale]:
    """The scales of layers with a `weight` that is multiplied with their input, by layer in the order of execution.

    Layers before a normalisation are left out, since it takes their scale away.
    """
    places = {parameter.name: index for index, parameter in enumerate(recording.parameters)}
    scales = {}
    for column, (layer, family) in enumerate(find_families(recording).items()):
        weight, bias = places.get(f"{layer}.weight"), places.get(f"{layer}.bias")
        if weight is not None and family != "norm" and "Embedding" not in recording.probed[column].type:
            gain = measure_gain(recording, column, bias)
            if scale := measure_scale(recording, weight, layer, family, gain):
                scales[layer] = scale
    return scales


def measure_scale(recording: Recording, weight: int, layer: str, family: str, gain: float) -> Scale | None:
    """The scale of a layer; None where its weight is no matrix, or all elements are the same."""
    assert recording.signals is not None
    table = recording.signals.weights
    std, fan_in, fan_out = (float(values[weight]) for values in (table.std, table.fan_in, table.fan_out))
    if not (0 < std < np.inf and 1 <= fan_in < np.inf and 1 <= fan_out < np.inf):
        return None
    right, right_std = initialise(family, fan_in, fan_out)
    return Scale(layer, recording.parameters[weight].name, right, std, right_std, gain, right_std * sqrt(fan_in))


def initialise(family: str, fan_in: float, fan_out: float) -> tuple[str, float]:
    """The name of the right initialisation before a family of functions, and its standard deviation."""
    if family == "relu":
        return "He", sqrt(2 / fan_in)
    return ("Xavier", sqrt(1 / (fan_in / 2 + fan_out / 2))) if family == "tanh" else ("LeCun", sqrt(1 / fan_in))


def measure_gain(recording: Recording, column: int, bias: int | None) -> float:
    """RMS of the output over RMS of the input on the first probed step, the bias' part taken off; NaN if unknown."""
    assert recording.signals is not None
    if not len(recording.probes.steps):
        return float("nan")
    given = float(recording.signals.layers.input_rms[0, column])
    returned = float(recording.probes.output_rms[0, column])
    if not (0 < given < np.inf and 0 <= returned < np.inf):
        return float("nan")
    if bias is not None and returned > 0 and len(recording.statistics.steps):
        rms = float(recording.statistics.parameter_norm[0, bias]) / sqrt(recording.parameters[bias].numel)
        returned *= sqrt(1 - min(rms / returned, 1.0) ** 2)
    return returned / given


def passing_blocks(recording: Recording) -> set[str]:
    """The residual blocks that mostly pass on what they get: no weight in them can make the signal shrink."""
    if recording.signals is None or not len(recording.probes.steps):
        return set()
    blocks = recording.signals.blocks
    return {name for name, share in zip(blocks.names, blocks.branch_share[0], strict=True) if share < PASSED_ON}


def explain(layers: Collection[str], scales: dict[str, Scale], passing: Collection[str]) -> float:
    """Decades by which the weights let the signal grow from the first to the last of the layers, along all between."""
    order = list(scales)
    places = [order.index(layer) for layer in layers if layer in scales]
    between = order[min(places) + 1 : max(places) + 1] if places else []
    return sum(effect(scales[layer], passing) for layer in between)


def effect(scale: Scale, passing: Collection[str]) -> float:
    """The scale's excess; 0 for a small one within a block that mostly passes on what it gets."""
    passed = any(module in passing for module in enclosing(scale.layer))
    return max(scale.excess, 0.0) if passed else scale.excess
