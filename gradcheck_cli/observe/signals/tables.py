"""Signals out of the rows that came over from the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcheck_cli.observe.signals.activations import Activity
from gradcheck_cli.observe.transfer import on_host
from gradcheck_cli.records import Floats
from gradcheck_cli.signals import (
    ActivationSignals,
    AttentionSignals,
    BlockSignals,
    LayerSignals,
    RecurrenceSignals,
    Signals,
    Site,
    WeightSignals,
)

Row = Mapping[str, Any]
"""Each a `tallies.Cells`, and `dot` and `square` as they came over."""


@dataclass(frozen=True)
class Columns:
    """Which place has which column, by table, and what is known of places over the whole run."""

    places: Mapping[str, Mapping[Any, int]]
    activity: Mapping[Site, Activity]
    lengths: Mapping[int, int]


def make_signals(rows: Sequence[Row], columns: Columns, probes: Sequence[int], weights: WeightSignals) -> Signals:
    """Tables of the rows, one for each probed step; `probes` are the probe numbers in the order of execution."""
    parameters = len(weights.std)
    layers = fill(rows, "layer", probes, 3)
    result = [next((row[key] for key in row if key.startswith("result.")), np.full(3, np.nan)) for row in rows]
    table = np.array(result, dtype=np.float64).reshape(len(rows), 3)
    return Signals(
        layers=LayerSignals(np.sqrt(layers[:, :, 0]), layers[:, :, 1], layers[:, :, 2]),
        activations=make_activations(rows, columns),
        attention=make_attention(rows, columns),
        blocks=make_blocks(rows, columns),
        recurrence=make_recurrence(rows, columns),
        weights=weights,
        output_variation=table[:, 0],
        same_class=table[:, 1],
        input_variation=table[:, 2],
        classes=classes_of(rows, columns),
        gradient_dot=vectors(rows, "dot", parameters),
        gradient_square=vectors(rows, "square", parameters),
    )


def fill(rows: Sequence[Row], table: str, columns: Sequence[int], size: int) -> Floats:
    """(rows, columns, size): the vectors of a table; NaN where a row has none."""
    nothing = np.full(size, np.nan)
    cells = [[row.get(f"{table}.{column}", nothing) for column in columns] for row in rows]
    return np.array(cells, dtype=np.float64).reshape(len(rows), len(columns), size)


def vectors(rows: Sequence[Row], name: str, size: int) -> Floats:
    """(rows, size): one vector of each row, NaN where it has none."""
    nothing = np.full(size, np.nan)
    return np.array([on_host(row.get(name, nothing)) for row in rows], dtype=np.float64).reshape(len(rows), size)


def make_activations(rows: Sequence[Row], columns: Columns) -> ActivationSignals:
    sites = tuple(columns.places.get("activation", {}))
    table = fill(rows, "activation", range(len(sites)), 2)
    known = [columns.activity[site].latest() if site in columns.activity else None for site in sites]
    return ActivationSignals(
        sites=sites,
        saturated=table[:, :, 0],
        zero=table[:, :, 1],
        units=np.array([len(one[0]) if one else 0 for one in known], dtype=np.int64),
        never_active=np.array([1 - float(one[0].float().mean()) if one else np.nan for one in known], dtype=float),
        samples=np.array([one[1] if one else 0 for one in known], dtype=np.int64),
    )


def make_attention(rows: Sequence[Row], columns: Columns) -> AttentionSignals:
    sites = tuple(columns.places.get("attention", {}))
    table = fill(rows, "attention", range(len(sites)), 2)
    return AttentionSignals(sites, table[:, :, 0], table[:, :, 1])


def make_blocks(rows: Sequence[Row], columns: Columns) -> BlockSignals:
    names = tuple(columns.places.get("block", {}))
    table = fill(rows, "block", range(len(names)), 3)
    return BlockSignals(names, np.sqrt(table[:, :, 0]), np.sqrt(table[:, :, 1]), table[:, :, 2])


def make_recurrence(rows: Sequence[Row], columns: Columns) -> RecurrenceSignals:
    places = columns.places.get("time", {})
    longest = max((row[key].size for row in rows for key in row if key.startswith("time.")), default=0)
    squares = np.full((len(rows), len(places), longest), np.nan)
    for number, row in enumerate(rows):
        for column in range(len(places)):
            values = row.get(f"time.{column}", np.empty(0))
            squares[number, column, : values.size] = values
    lengths = [columns.lengths.get(column, 0) for column in range(len(places))]
    return RecurrenceSignals(tuple(places), np.sqrt(squares), np.array(lengths, dtype=np.int64))


def classes_of(rows: Sequence[Row], columns: Columns) -> Floats:
    """(rows,): how many scores the model's output has, NaN where it is no row of scores."""
    scores = {column: number for number, column in columns.places.get("result", {}).items()}
    found = [next((scores[int(key[7:])] for key in row if key.startswith("result.")), 0) for row in rows]
    return np.array([number if number > 1 else np.nan for number in found], dtype=np.float64)
