"""Signals of hand-written recordings: everything unknown, except for what the arguments say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck_cli.records import Floats, Recording
from gradcheck_cli.signals import (
    ActivationSignals,
    AttentionSignals,
    BlockSignals,
    LayerSignals,
    RecurrenceSignals,
    RecurrentMatrix,
    Signals,
    Site,
    WeightSignals,
)

NAN = float("nan")
Value = float | Sequence[float]


def with_signals(
    recording: Recording,
    *,
    input_rms: Mapping[str, Value] | None = None,
    output_mean: Mapping[str, Value] | None = None,
    output_zero_fraction: Mapping[str, Value] | None = None,
    activations: Mapping[Site, Mapping[str, Any]] | None = None,
    attention: Mapping[Site, tuple[Value, Value]] | None = None,
    blocks: Mapping[str, tuple[Value, Value, Value]] | None = None,
    recurrence: Mapping[Site, Sequence[float]] | None = None,
    weights: Mapping[str, tuple[float, float, float]] | None = None,
    recurrent: Sequence[RecurrentMatrix] = (),
    output_variation: Value = 1.0,
    same_class: Value = NAN,
    classes: Value = NAN,
    input_variation: Value = NAN,
    gradient_dot: Mapping[str, Value] | None = None,
    gradient_square: Mapping[str, Value] | None = None,
) -> Recording:
    """The recording with signals.

    A value is one number for all probed steps or one for each. Layers go by module, `weights` (std, fan_in, fan_out)
    and gradients by parameter; `activations` give saturated, zero, units, never_active, samples; `attention` logit_std
    and entropy; `blocks` output_rms, branch_share, token_cosine; `recurrence` the gradient's RMS at each time step.
    """
    rows = len(recording.probes.steps)
    layers = [module.name for module in recording.probed]
    parameters = [parameter.name for parameter in recording.parameters]
    fans = np.array([(weights or {}).get(name, (NAN, NAN, NAN)) for name in parameters]).reshape(-1, 3)
    return replace(
        recording,
        signals=Signals(
            layers=LayerSignals(
                columns(input_rms, layers, rows, 1.0),
                columns(output_mean, layers, rows, 0.0),
                columns(output_zero_fraction, layers, rows, 0.0),
            ),
            activations=make_activations(activations or {}, rows),
            attention=AttentionSignals(tuple(attention or {}), *pick(attention or {}, 2, rows)),
            blocks=BlockSignals(tuple(blocks or {}), *pick(blocks or {}, 3, rows)),
            recurrence=make_recurrence(recurrence or {}, rows),
            weights=WeightSignals(fans[:, 0], fans[:, 1], fans[:, 2], tuple(recurrent)),
            output_variation=each(output_variation, rows),
            same_class=each(same_class, rows),
            classes=each(classes, rows),
            input_variation=each(input_variation, rows),
            gradient_dot=columns(gradient_dot, parameters, rows, NAN),
            gradient_square=columns(gradient_square, parameters, rows, NAN),
        ),
    )


def each(value: Value, rows: int) -> Floats:
    """(rows,) of one number, or of one for each row."""
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (rows,)).copy()


def columns(values: Mapping[str, Value] | None, names: Sequence[str], rows: int, default: float) -> Floats:
    """(rows, names)."""
    found = values or {}
    assert set(found) <= set(names), f"unknown: {set(found) - set(names)}"
    return np.array([each(found.get(name, default), rows) for name in names]).reshape(len(names), rows).T.copy()


def pick(table: Mapping[Any, tuple[Value, ...]], size: int, rows: int) -> list[Floats]:
    """One (rows, places) array for each of `size` members."""
    cells = [[each(values[member], rows) for values in table.values()] for member in range(size)]
    return [np.array(part).reshape(len(table), rows).T.copy() for part in cells]


def make_activations(table: Mapping[Site, Mapping[str, Any]], rows: int) -> ActivationSignals:
    """The members that a place does not have are unknown."""
    made = table.values()
    return ActivationSignals(
        sites=tuple(table),
        saturated=np.array([each(one.get("saturated", NAN), rows) for one in made]).reshape(len(table), rows).T.copy(),
        zero=np.array([each(one.get("zero", 0.0), rows) for one in made]).reshape(len(table), rows).T.copy(),
        units=np.array([one.get("units", 0) for one in made], dtype=np.int64),
        never_active=np.array([one.get("never_active", NAN) for one in made], dtype=np.float64),
        samples=np.array([one.get("samples", 0) for one in made], dtype=np.int64),
    )


def make_recurrence(table: Mapping[Site, Sequence[float]], rows: int) -> RecurrenceSignals:
    """The same gradients on every row."""
    longest = max((len(values) for values in table.values()), default=0)
    gradient = np.full((rows, len(table), longest), NAN)
    for column, values in enumerate(table.values()):
        gradient[:, column, : len(values)] = values
    return RecurrenceSignals(tuple(table), gradient, np.array([len(v) for v in table.values()], dtype=np.int64))
