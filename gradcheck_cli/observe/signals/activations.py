"""How saturated, how sparse and how dead activation functions are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gradcheck_cli.observe.native import library
from gradcheck_cli.observe.native.library import apply, read
from gradcheck_cli.observe.signals.sampling import Term, thin, zero_fraction

RECTIFYING = frozenset({"relu", "relu6"})
UNIT_SAMPLE = 1 << 16
CALLS = 64
ENOUGH = 128

# Where the derivative, as a function of the output, is under 5 % of its maximum.
FLAT: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda y: (y - 0.5).abs() > 0.487340,  # y (1 - y) < 0.0125
    "tanh": lambda y: y.abs() > 0.974679,  # 1 - y^2 < 0.05
    "softsign": lambda y: y.abs() > 0.776393,  # (1 - |y|)^2 < 0.05
    "hardsigmoid": lambda y: (y <= 0) | (y >= 1),
    "relu6": lambda y: y >= 6,
}
KINDS: Mapping[Any, str] = {
    **dict.fromkeys((torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_), "relu"),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, functional.sigmoid), "sigmoid"),
    **dict.fromkeys((torch.special.expit,), "sigmoid"),
    **dict.fromkeys((torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, functional.tanh), "tanh"),
    **dict.fromkeys((functional.hardtanh, functional.hardtanh_), "hardtanh"),
    functional.relu6: "relu6",
    functional.hardsigmoid: "hardsigmoid",
    functional.softsign: "softsign",
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax), "softmax"),
}


@dataclass
class Activity:
    """Which units gave something above 0, call by call: (units,) bool where it was found, and of how many examples.

    Of the latest calls only, so that units that die in training are seen.
    """

    units: int
    calls: deque[tuple[Tensor | bytes, int]] = field(default_factory=lambda: deque(maxlen=CALLS))

    def latest(self) -> tuple[Tensor, int]:
        """Units that were active in any of the latest calls that have ENOUGH examples together, and how many that are.

        Of all calls where they have fewer.
        """
        alive, samples = torch.zeros_like(as_tensor(self.calls[-1][0])), 0
        for active, examples in reversed(self.calls):
            alive, samples = alive | as_tensor(active), samples + examples
            if samples >= ENOUGH:
                break
        return alive, samples


def refine(kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, float, float]:
    """The kind, and between which outputs a hardtanh is not flat: one from 0 to 6 is relu6."""
    if kind != "hardtanh":
        return kind, 0.0, 0.0
    low = float(args[1] if len(args) > 1 else kwargs.get("min_val", -1.0))
    high = float(args[2] if len(args) > 2 else kwargs.get("max_val", 1.0))
    return ("relu6", low, high) if (low, high) == (0.0, 6.0) else ("hardtanh", low, high)


def measure_activation(kind: str, output: Tensor, low: float, high: float, unit_dim: int) -> tuple[Term, Term]:
    """The saturated fraction, none for relu, and the fraction of zeros; of a sample where all can't be read at once."""
    sums = read(output) if kind == "relu" else None
    if sums is not None:
        return None, sums[3] / output.numel()
    values = thin(output.detach(), keep=(output.dim() - 1 if kind == "softmax" else unit_dim,))
    flat = find_flat(kind, values, low, high)
    return None if flat is None else torch.count_nonzero(flat) / flat.numel(), zero_fraction(values)


def find_flat(kind: str, values: Tensor, low: float, high: float) -> Tensor | None:
    """Where outputs are saturated, bool: for a softmax, which rows; None for a kind that never is."""
    if kind == "softmax":
        return values.amax(-1) > 0.987340
    if kind == "hardtanh":
        return (values <= low) | (values >= high)
    return FLAT[kind](values) if kind in FLAT else None


def note_activity(known: Activity | None, output: Tensor, unit_dim: int) -> Activity | None:
    """What is known with this output added; None where units can't be told: one dimension, or their number varies."""
    if output.dim() < 2 or (known and known.units != output.shape[unit_dim]):
        return known
    known = known or Activity(output.shape[unit_dim])
    known.calls.append((find_active(output, unit_dim), output.shape[0]))
    return known


def find_active(output: Tensor, unit_dim: int) -> Tensor | bytes:
    """(units,) bool: which gave something above 0; nothing is below, and a NaN is no sign of death.

    Of a sample where all can't be read at once.
    """
    units, inner = output.shape[unit_dim], prod(output.shape[unit_dim + 1 :])
    known = apply(library.COMPILED.find_active, output, units, inner) if library.COMPILED else None
    if known is not None:
        return known
    values = thin(output.detach(), UNIT_SAMPLE, keep=(0, unit_dim))
    return values.sum([dim for dim in range(values.dim()) if dim != unit_dim]) != 0


def as_tensor(active: Tensor | bytes) -> Tensor:
    """(units,) bool."""
    return active if isinstance(active, Tensor) else torch.tensor(list(active), dtype=torch.bool)
