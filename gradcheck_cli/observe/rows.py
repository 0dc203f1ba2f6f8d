"""What is kept of one step, once it has come over from the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.peers import Values
from gradcheck_cli.observe.signals.tallies import Cells
from gradcheck_cli.observe.transfer import Packed, on_host, stack
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
    "examples": np.int64,
}
NAN = float("nan")
NOTHING = np.empty((0, 6))


class Row(NamedTuple):
    """One step's statistics: (present, 6) for the parameters that had a gradient, (trainable,) parameter norms.

    `present` and `trainable` say which parameters these are.
    """

    step: int
    present: Sequence[int]
    statistics: Floats | Packed
    trainable: Sequence[int]
    weights: Floats | Packed


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One probed step: how far parameters moved, their norms before it and their largest elements, (trainable,); no
    moves of a step that was skipped. Outputs and their gradients as RMS by probe, and what else was heard.
    """

    step: int
    trainable: Sequence[int]
    weights: Floats | Packed
    updates: Floats | Packed | None
    largest: Floats | Packed | None
    output: dict[int, float]
    gradient: dict[int, float]
    signals: dict[str, Cells]

    @property
    def update_ratio(self) -> Floats:
        """(trainable,): how far they moved, over their norms; NaN where those are 0 or NaN."""
        weights = on_host(self.weights)
        if self.updates is None:
            return np.full(len(weights), NAN)
        with np.errstate(all="ignore"):
            return np.where(weights > 0, on_host(self.updates) / weights, NAN)

    @property
    def parameter_max(self) -> Floats:
        """(trainable,)"""
        return np.full(len(self.weights), NAN) if self.largest is None else on_host(self.largest)


def series_entry(draft: Draft, values: Values, norm: float, clipped: float) -> tuple[float, ...]:
    """One step's values of SERIES, in its order, with the norm of all its gradients before and after clipping."""
    return (
        float(values.get("loss", NAN)),
        norm,
        clipped,
        draft.seconds,
        draft.overhead,
        float(values.get("found_inf", 0.0) > 0),
        float(values.get("scale", NAN)),
        draft.batch,
        draft.epoch,
        count_inputs(values) if "input.0" in values else 0.0,
        draft.examples,
    )


def count_inputs(values: Values) -> float:
    """How many elements of a step's inputs were not finite."""
    return sum([float(count) for name, count in values.items() if name.startswith("input.")])


def joint_norms(tables: Sequence[Floats | Packed]) -> list[float]:
    """For each step, the L2 norm of all, from those of the parts: (n,), or the first column of a table."""
    shapes = {table.shape for table in tables}
    if len(shapes) > 1:
        return [norm for table in tables for norm in joint_norms([table])]
    together = stack(tables) if tables else NOTHING
    norms = together[:, :, 0] if together.ndim > 2 else together
    with np.errstate(all="ignore"):
        joint: list[float] = np.sqrt(np.square(norms).sum(axis=-1)).tolist()
    return joint
