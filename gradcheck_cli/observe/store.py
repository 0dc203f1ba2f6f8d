"""Keep what came over from the device, and make a `Recording` of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.probes import merge_order
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

STATISTICS = ("norm", "mean", "std", "max_abs", "zero_fraction", "nonfinite", "parameter_norm")
NAN = float("nan")
Arrays = Mapping[str, Floats]


@dataclass(frozen=True)
class ProbeRow:
    """One probed step; outputs and output gradients as RMS by probe."""

    step: int
    update_ratio: Floats
    parameter_max: Floats
    output: dict[int, float]
    gradient: dict[int, float]


class Store:
    """Grows by one series entry a step and one row a step; past `max_rows` rows it keeps every second one.

    A row is (parameters, 8) float64: STATISTICS and whether there was a gradient; 64 bytes a parameter.
    """

    def __init__(self, initial_norms: Floats, trainable: Sequence[int], max_rows: int) -> None:
        self._parameters = len(initial_norms)
        self._trainable = list(trainable)
        self._initial_norms = initial_norms
        self._max_rows = max_rows
        self._stride = 1
        self._rows: list[tuple[int, Floats]] = []
        self._probe_rows: list[ProbeRow] = []
        self._series: dict[str, list[float]] = {name: [] for name in SERIES}
        self._lr: list[Floats] = []
        self._order: list[int] = []
        self.nonfinite_input = ""

    @property
    def steps(self) -> int:
        """How many steps have been added."""
        return len(self._lr)

    def latest(self, name: str) -> float:
        """The newest value of a series; NaN before the first step."""
        return self._series[name][-1] if self._series[name] else NAN

    def add(self, draft: Draft, values: Arrays) -> None:
        """Append one step."""
        step = self.steps
        row = self._row(draft, values)
        self._add_series(draft, values, row)
        self.nonfinite_input = self.nonfinite_input or draft.nonfinite_input
        if step % self._stride == 0:
            self._rows.append((step, row))
        if draft.probing:
            self._add_probes(step, draft, values, row)
        self._thin()

    def _row(self, draft: Draft, values: Arrays) -> Floats:
        row = np.full((self._parameters, 8), NAN)
        row[:, 6] = self._initial_norms
        row[self._trainable, 6] = values["weights"]
        row[:, 7] = 0.0
        if draft.present:
            row[draft.present, :6] = values["statistics"]
            row[draft.present, 7] = 1.0
        return row

    def _add_series(self, draft: Draft, values: Arrays, row: Floats) -> None:
        present = row[draft.present, 0]
        norm = float(np.sqrt(np.sum(present**2)))
        clipped = values.get("clipped")
        entry = {
            "loss": float(values.get("loss", NAN)),
            "grad_norm": norm,
            "grad_norm_clipped": norm if clipped is None else float(np.sqrt(np.sum(clipped**2))),
            "seconds": draft.seconds,
            "overhead": draft.overhead,
            "skipped": float(values.get("found_inf", 0.0) > 0),
            "loss_scale": float(values.get("scale", NAN)),
            "batch": draft.batch,
            "epoch": draft.epoch,
            "nonfinite_inputs": sum(float(value) for name, value in values.items() if name.startswith("input.")),
        }
        for name, value in entry.items():
            self._series[name].append(value)
        self._lr.append(np.array([float(value) for name, value in values.items() if name.startswith("lr.")]))

    def _add_probes(self, step: int, draft: Draft, values: Arrays, row: Floats) -> None:
        ratio, largest = np.full(self._parameters, NAN), np.full(self._parameters, NAN)
        if "updates" in values:
            with np.errstate(all="ignore"):
                before = row[self._trainable, 6]
                ratio[self._trainable] = np.where(before > 0, values["updates"] / before, NAN)
            largest[self._trainable] = values["largest"]
        scale = float(values.get("scale", 1.0))
        output = {
            probe: float(np.sqrt(values[f"output.{probe}"] / max(numel, 1)))
            for probe, numel in draft.output_numel.items()
        }
        gradient = {
            probe: float(np.sqrt(values[f"gradient.{probe}"] / max(numel, 1))) / scale
            for probe, numel in draft.gradient_numel.items()
        }
        merge_order(self._order, list(output))
        self._probe_rows.append(ProbeRow(step, ratio, largest, output, gradient))

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
    ) -> Recording:
        """Everything so far; `probed[i]` is the index in `modules` of probe i."""
        columns = {probed[probe]: column for column, probe in enumerate(self._order)}
        return Recording(
            run=run,
            parameters=tuple(parameters),
            modules=tuple(replace(module, probe=columns.get(i)) for i, module in enumerate(modules)),
            series=self._make_series(),
            statistics=self._make_statistics(),
            probes=self._make_probes(),
            final_parameter_norm=final_norms,
            nonfinite_input=self.nonfinite_input,
        )

    def _make_series(self) -> Series:
        arrays: dict[str, Any] = {name: np.array(values, dtype=SERIES[name]) for name, values in self._series.items()}
        lr = np.stack(self._lr) if self._lr else np.zeros((0, 0))
        return Series(lr=lr, **arrays)

    def _make_statistics(self) -> ParameterStatistics:
        rows = np.stack([row for _, row in self._rows]) if self._rows else np.zeros((0, self._parameters, 8))
        columns = {name: np.ascontiguousarray(rows[:, :, i]) for i, name in enumerate(STATISTICS)}
        steps = np.array([step for step, _ in self._rows], dtype=np.int64)
        return ParameterStatistics(steps=steps, has_gradient=rows[:, :, 7] > 0, **columns)

    def _make_probes(self) -> Probes:
        rows = self._probe_rows
        per_parameter = np.zeros((0, self._parameters))
        return Probes(
            steps=np.array([row.step for row in rows], dtype=np.int64),
            update_ratio=np.stack([row.update_ratio for row in rows]) if rows else per_parameter,
            parameter_max=np.stack([row.parameter_max for row in rows]) if rows else per_parameter,
            output_rms=self._by_module([row.output for row in rows]),
            output_grad_rms=self._by_module([row.gradient for row in rows]),
        )

    def _by_module(self, rows: Sequence[Mapping[int, float]]) -> Floats:
        cells = [[row.get(probe, NAN) for probe in self._order] for row in rows]
        return np.array(cells, dtype=np.float64).reshape(len(rows), len(self._order))


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
