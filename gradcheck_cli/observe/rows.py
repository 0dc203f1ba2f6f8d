"""What is kept of one step, once it has come over from the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.records import Floats

SERIES: Mapping[str, type] = {
    "loss": np.float64,
    "grad_norm": np.float64,
    "grad_norm_clipped": np.float64,
    "seconds": np.float64,
    "overhead": np.float64,
    "skipped": np.bool_,
    "loss_scale": np.float64,
    "batch": np.int64,
    "epoch": np.int64,
    "nonfinite_inputs": np.int64,
}
NAN = float("nan")
NOTHING = np.empty((0, 6))
Arrays = Mapping[str, Floats]


@dataclass(frozen=True)
class ProbeRow:
    """One probed step; (trainable,) arrays, outputs and their gradients as RMS by probe, and what else was heard."""

    step: int
    update_ratio: Floats
    parameter_max: Floats
    output: dict[int, float]
    gradient: dict[int, float]
    signals: dict[str, Floats]


class Row(NamedTuple):
    """One step's statistics: (present, 6) for the parameters that had a gradient, (trainable,) parameter norms."""

    step: int
    present: Sequence[int]
    statistics: Floats
    weights: Floats


def series_entry(draft: Draft, values: Arrays, statistics: Floats) -> tuple[float, ...]:
    """One step's values of SERIES, in its order."""
    norm, clipped = length_of(statistics[:, 0]), values.get("clipped")
    return (
        float(values.get("loss", NAN)),
        norm,
        norm if clipped is None else length_of(clipped),
        draft.seconds,
        draft.overhead,
        float(values.get("found_inf", 0.0) > 0),
        float(values.get("scale", NAN)),
        draft.batch,
        draft.epoch,
        sum([float(count) for name, count in values.items() if name.startswith("input.")]),
    )


def length_of(norms: Floats) -> float:
    """The L2 norm of all, from those (n,) of the parts."""
    return sqrt(norms.dot(norms))
