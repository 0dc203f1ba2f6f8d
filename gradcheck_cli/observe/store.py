"""Keep what came over from the device, and make a `Recording` of it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from math import sqrt
from typing import Any

import numpy as np

from gradcheck_cli.observe.draft import Draft, Probed
from gradcheck_cli.observe.numerics import COLUMNS
from gradcheck_cli.observe.peers import Values
from gradcheck_cli.observe.probes import merge_order
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.rows import NAN, NOTHING, SERIES, ProbeRow, Row, joint_norms, series_entry
from gradcheck_cli.observe.signals.tables import Columns, make_signals
from gradcheck_cli.observe.signals.tallies import Calls, joined, total_of
from gradcheck_cli.observe.transfer import bring, on_host
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

PLACES = {name: place - len(SERIES) for place, name in enumerate(SERIES)}
"""Where the newest value of each series stands, from the end of all."""
Listener = Callable[[Draft, Sequence[float], Row, ProbeRow | None], None]
"""Hears of each step: its draft, its values of SERIES, its row, and what was probed if it was."""


class Store:
    """Grows by one series entry a step and one row a step; past `max_rows` rows it keeps every second one.

    A row takes 56 bytes a parameter, and 400 besides. `ended` says why a step ended the recording, if one did.
    """

    def __init__(
        self,
        initial_norms: Floats,
        trainable: Sequence[int],
        settings: RecorderSettings,
        weights: WeightSignals,
        listener: Listener,
    ) -> None:
        self._initial_norms = initial_norms
        self._trainable = list(trainable)
        self._settings = settings
        self._weights = weights
        self._listener = listener
        self._stride = 1
        self._rows: list[Row] = []
        self._probe_rows: list[ProbeRow] = []
        self._series = array("d")
        self._lr: list[tuple[float, ...]] = []
        self._order: list[int] = []
        self.steps = 0
        self.ended = ""
        self.nonfinite_input = ""

    def latest(self, name: str) -> float:
        """The newest value of a series; NaN before the first step."""
        return self._series[PLACES[name]] if self.steps else NAN

    def take(self, drafts: Sequence[Draft]) -> None:
        """Bring drafts over from the device, in one transfer, and append their steps up to the one that is the last."""
        taken = bring([draft.values for draft in drafts])
        self._settings.peers.put_together(drafts, taken, self._trainable)
        norms = clipped = joint_norms([values.get("statistics", NOTHING) for values in taken])
        if any("clipped" in values for values in taken):
            clipped = joint_norms([values.get("clipped", values.get("statistics", NOTHING)) for values in taken])
        for draft, values, *of_gradients in zip(drafts, taken, norms, clipped, strict=True):
            if not self.ended:
                self._add(draft, values, series_entry(draft, values, *of_gradients))
                self.ended = self._settings.reason_to_end(float(values.get("loss", 0)), of_gradients[0])

    def _add(self, draft: Draft, values: Values, entry: Sequence[float]) -> None:
        row = Row(self.steps, draft.present, values.get("statistics", NOTHING), draft.trainable, values["weights"])
        self._series.extend(entry)
        self._lr.append(tuple(map(float, draft.lr)))
        self.nonfinite_input = self.nonfinite_input or draft.nonfinite_input
        if self.steps % self._stride == 0:
            self._rows.append(row)
        if "dot" in values and self._probe_rows:
            self._probe_rows[-1].signals.update(dot=values["dot"], square=values["square"])
        if draft.probed:
            self._add_probes(draft.probed, values, row)
        self._listener(draft, entry, row, self._probe_rows[-1] if draft.probed else None)
        self.steps += 1
        self._thin()

    def _add_probes(self, probed: Probed, values: Values, row: Row) -> None:
        scale = float(values.get("scale", 1.0))
        heard = probed.layout.unpack(values.get("numbers", NOTHING))
        output = self._root_means({p: (heard.pop(f"output.{p}"), n) for p, n in probed.output_numel.items()})
        gradient = self._root_means({p: (heard.pop(f"gradient.{p}"), n) for p, n in probed.gradient_numel.items()})
        gradient = {probe: value / (scale * self._settings.peers.degree) for probe, value in gradient.items()}
        merge_order(self._order, list(output))
        signals = {name: joined(calls) for name, calls in heard.items()}
        signals.update(times_of(values, scale))
        moved = values.get("updates"), values.get("largest")
        self._probe_rows.append(ProbeRow(row.step, row.trainable, row.weights, *moved, output, gradient, signals))

    def _root_means(self, calls: Mapping[int, tuple[Calls, int]]) -> dict[int, float]:
        """RMS by probe, of so many elements each, from their sums of squares call by call."""
        own = {probe: (total_of(squares), numel) for probe, (squares, numel) in calls.items()}
        sums = self._settings.peers.add_calls(own)
        return {probe: sqrt(squares / max(numel, 1)) for probe, (squares, numel) in sums.items()}

    def _thin(self) -> None:
        if len(self._rows) > self._settings.max_rows:
            self._rows = self._rows[::2]
            self._stride *= 2
        if len(self._probe_rows) > self._settings.max_rows:
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

    def make_series(self, first: int = 0) -> Series:
        """The series so far, from a step on. The learning rate of a group is NaN before the group was added."""
        width = len(SERIES)
        table = np.array(self._series[first * width :]).reshape(-1, width)
        columns: dict[str, Any] = {name: table[:, i].astype(kind) for i, (name, kind) in enumerate(SERIES.items())}
        rates = list(zip_longest(*self._lr[first:], fillvalue=NAN))
        return Series(lr=np.array(rates).reshape(len(rates), -1 if rates else len(table)).T, **columns)

    def _make_statistics(self) -> ParameterStatistics:
        shape = len(self._rows), len(self._initial_norms)
        statistics, has_gradient = np.full((*shape, 6), NAN), np.zeros(shape, dtype=np.bool_)
        norms = np.tile(self._initial_norms, (len(self._rows), 1))
        for number, row in enumerate(self._rows):
            statistics[number, row.present] = on_host(row.statistics)
            has_gradient[number, row.present] = True
            norms[number, row.trainable] = on_host(row.weights)
        columns = {name: np.ascontiguousarray(statistics[:, :, i]) for i, name in enumerate(COLUMNS)}
        steps = np.array([row.step for row in self._rows], dtype=np.int64)
        return ParameterStatistics(steps=steps, has_gradient=has_gradient, parameter_norm=norms, **columns)

    def _make_probes(self) -> Probes:
        rows = self._probe_rows
        return Probes(
            steps=np.array([row.step for row in rows], dtype=np.int64),
            update_ratio=self._by_parameter("update_ratio"),
            parameter_max=self._by_parameter("parameter_max"),
            output_rms=self._by_module([row.output for row in rows]),
            output_grad_rms=self._by_module([row.gradient for row in rows]),
        )

    def _by_parameter(self, name: str) -> Floats:
        table = np.full((len(self._probe_rows), len(self._initial_norms)), NAN)
        for number, row in enumerate(self._probe_rows):
            table[number, row.trainable] = getattr(row, name)
        return table

    def _by_module(self, rows: Sequence[Mapping[int, float]]) -> Floats:
        cells = [[row.get(probe, NAN) for probe in self._order] for row in rows]
        return np.array(cells, dtype=np.float64).reshape(len(rows), len(self._order))


def times_of(values: Values, scale: float) -> dict[str, Floats]:
    """Mean squares of gradients at time steps, without the loss scale."""
    return {name: value / scale**2 for name, value in values.items() if name.startswith("time.")}
