"""Keep what came over from the device, and make a `Recording` of it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.numerics import COLUMNS
from gradcheck_cli.observe.probes import merge_order
from gradcheck_cli.observe.signals.tables import Columns, make_signals
from gradcheck_cli.records import (
    Floats,
    ModuleInfo,
    ParameterInfo,
    ParameterStatistics,
    Probes,
    Recording,
    RunInfo,
    Series,
)
from gradcheck_cli.signals import WeightSignals

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


@dataclass(frozen=True)
class Row:
    """One step's statistics: (present, 6) for the parameters that had a gradient, (trainable,) parameter norms."""

    step: int
    present: Sequence[int]
    statistics: Floats
    weights: Floats


class Store:
    """Grows by one series entry a step and one row a step; past `max_rows` rows it keeps every second one.

    A row takes 56 bytes a parameter, and 400 besides.
    """

    def __init__(self, initial_norms: Floats, trainable: Sequence[int], max_rows: int, weights: WeightSignals) -> None:
        self._initial_norms = initial_norms
        self._trainable = list(trainable)
        self._max_rows = max_rows
        self._weights = weights
        self._stride = 1
        self._rows: list[Row] = []
        self._probe_rows: list[ProbeRow] = []
        self._series = array("d")
        self._lr = array("d")
        self._order: list[int] = []
        self.steps = 0
        self.nonfinite_input = ""

    def latest(self, name: str) -> float:
        """The newest value of a series; NaN before the first step."""
        return self._series[list(SERIES).index(name) - len(SERIES)] if self.steps else NAN

    def add(self, draft: Draft, values: Arrays) -> None:
        """Append one step."""
        row = Row(self.steps, draft.present, values.get("statistics", NOTHING), values["weights"])
        self._series.extend(series_entry(draft, values, row.statistics))
        self._lr.extend(float(rate) for rate in draft.lr)
        self.nonfinite_input = self.nonfinite_input or draft.nonfinite_input
        if self.steps % self._stride == 0:
            self._rows.append(row)
        if "dot" in values and self._probe_rows:
            self._probe_rows[-1].signals.update(dot=values["dot"], square=values["square"])
        if draft.probing:
            self._add_probes(draft, values, row)
        self.steps += 1
        self._thin()

    def _add_probes(self, draft: Draft, values: Arrays, row: Row) -> None:
        unknown = np.full(len(self._trainable), NAN)
        ratio = largest = unknown
        if "updates" in values:
            with np.errstate(all="ignore"):
                ratio = np.where(row.weights > 0, values["updates"] / row.weights, NAN)
            largest = np.maximum(-values["low"], values["high"])
        scale = float(values.get("scale", 1.0))
        heard = draft.layout.unpack(values.get("numbers", NOTHING))
        output = {probe: root_mean(heard.pop(f"output.{probe}"), numel) for probe, numel in draft.output_numel.items()}
        gradient = {
            probe: root_mean(heard.pop(f"gradient.{probe}"), numel) / scale
            for probe, numel in draft.gradient_numel.items()
        }
        merge_order(self._order, list(output))
        signals = {name: calls[0] if len(calls) == 1 else nanmean(calls) for name, calls in heard.items()}
        signals.update(times_of(values, scale))
        self._probe_rows.append(ProbeRow(row.step, ratio, largest, output, gradient, signals))

    def _thin(self) -> None:
        if len(self._rows) > self._max_rows:
            self._rows = self._rows[::2]
            self._stride *= 2
        if len(self._probe_rows) > self._max_rows:
            self._probe_rows = self._probe_rows[::2]

    def recording(
        self,
        run: RunInfo,
        parameters: Sequence[ParameterInfo],
        modules: Sequence[ModuleInfo],
        probed: Sequence[int],
        final_norms: Floats,
        heard: Columns,
    ) -> Recording:
        """Everything so far; `probed[i]` is the index in `modules` of probe i."""
        columns = {probed[probe]: column for column, probe in enumerate(self._order)}
        return Recording(
            run=run,
            parameters=tuple(parameters),
            modules=tuple(replace(module, probe=columns.get(i)) for i, module in enumerate(modules)),
            series=self.make_series(),
            statistics=self._make_statistics(),
            probes=self._make_probes(),
            final_parameter_norm=final_norms,
            nonfinite_input=self.nonfinite_input,
            signals=make_signals([row.signals for row in self._probe_rows], heard, self._order, self._weights),
        )

    def make_series(self) -> Series:
        """The series so far."""
        table = np.array(self._series).reshape(self.steps, len(SERIES))
        columns: dict[str, Any] = {name: table[:, i].astype(kind) for i, (name, kind) in enumerate(SERIES.items())}
        return Series(lr=np.array(self._lr).reshape(self.steps, -1 if self.steps else 0), **columns)

    def _make_statistics(self) -> ParameterStatistics:
        shape = len(self._rows), len(self._initial_norms)
        statistics, has_gradient = np.full((*shape, 6), NAN), np.zeros(shape, dtype=np.bool_)
        norms = np.tile(self._initial_norms, (len(self._rows), 1))
        for number, row in enumerate(self._rows):
            statistics[number, row.present] = row.statistics
            has_gradient[number, row.present] = True
            norms[number, self._trainable] = row.weights
        columns = {name: np.ascontiguousarray(statistics[:, :, i]) for i, name in enumerate(COLUMNS)}
        steps = np.array([row.step for row in self._rows], dtype=np.int64)
        return ParameterStatistics(steps=steps, has_gradient=has_gradient, parameter_norm=norms, **columns)

    def _make_probes(self) -> Probes:
        rows = self._probe_rows
        return Probes(
            steps=np.array([row.step for row in rows], dtype=np.int64),
            update_ratio=self._by_parameter([row.update_ratio for row in rows]),
            parameter_max=self._by_parameter([row.parameter_max for row in rows]),
            output_rms=self._by_module([row.output for row in rows]),
            output_grad_rms=self._by_module([row.gradient for row in rows]),
        )

    def _by_parameter(self, rows: Sequence[Floats]) -> Floats:
        table = np.full((len(rows), len(self._initial_norms)), NAN)
        for number, row in enumerate(rows):
            table[number, self._trainable] = row
        return table

    def _by_module(self, rows: Sequence[Mapping[int, float]]) -> Floats:
        cells = [[row.get(probe, NAN) for probe in self._order] for row in rows]
        return np.array(cells, dtype=np.float64).reshape(len(rows), len(self._order))


def root_mean(squares: Floats, numel: int) -> float:
    """RMS of so many elements, from their sums of squares call by call."""
    return float(np.sqrt(squares.sum() / max(numel, 1)))


def nanmean(calls: Floats) -> Floats:
    """The mean of (calls, values) over the calls, without NaN."""
    known = ~np.isnan(calls)
    with np.errstate(all="ignore"):
        mean: Floats = np.where(known, calls, 0).sum(0) / known.sum(0)
    return mean


def times_of(values: Arrays, scale: float) -> dict[str, Floats]:
    """Mean squares of gradients at time steps, without the loss scale."""
    return {name: value / scale**2 for name, value in values.items() if name.startswith("time.")}


def series_entry(draft: Draft, values: Arrays, statistics: Floats) -> tuple[float, ...]:
    """One step's values of SERIES, in its order."""
    norm = float(np.sqrt(np.dot(statistics[:, 0], statistics[:, 0])))
    clipped = values.get("clipped")
    return (
        float(values.get("loss", NAN)),
        norm,
        norm if clipped is None else float(np.sqrt(np.dot(clipped, clipped))),
        draft.seconds,
        draft.overhead,
        float(values.get("found_inf", 0.0) > 0),
        float(values.get("scale", NAN)),
        draft.batch,
        draft.epoch,
        sum(float(count) for name, count in values.items() if name.startswith("input.")),
    )
