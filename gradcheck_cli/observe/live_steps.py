"""Tell of each step as soon as it is in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.rows import SERIES, ProbeRow, Row
from gradcheck_cli.observe.transfer import on_host
from gradcheck_cli.records import Bools, Floats, Ints, ParameterInfo
from gradcheck_cli.step_statistics import StepStatistics

Column = tuple[str, Floats, Bools]
"""A statistic's name, its value for each layer, and which layers have one."""


class LiveSteps:
    """Joins what was measured of a step's parameters over each layer, and hands it to `settings.tell`.

    `norms` (parameters,) stay those of frozen parameters; `probed` are the names of the modules by probe.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        parameters: Sequence[ParameterInfo],
        norms: Floats,
        probed: Sequence[str],
    ) -> None:
        self._settings, self._probed = settings, probed
        self._norms = norms.copy()
        self._names = list(dict.fromkeys(parameter.module for parameter in parameters))
        places = {name: place for place, name in enumerate(self._names)}
        self._layer = np.array([places[parameter.module] for parameter in parameters], dtype=np.int64)
        self._numel = np.array([parameter.numel for parameter in parameters], dtype=np.float64)

    def __call__(self, draft: Draft, entry: Sequence[float], row: Row, probes: ProbeRow | None) -> None:
        """Tell of a step that has come over; `entry` are its values of SERIES."""
        if self._settings.tell is None:
            return
        series = dict(zip(SERIES, entry, strict=True))
        step = StepStatistics(
            model=self._settings.model,
            step=row.step,
            loss=series["loss"] if draft.losses else None,
            grad_norm=series["grad_norm"],
            grad_norm_clipped=series["grad_norm_clipped"],
            lr=tuple(float(rate) for rate in draft.lr),
            loss_scale=None if np.isnan(series["loss_scale"]) else series["loss_scale"],
            skipped=bool(series["skipped"]),
            layers=self._join(row, probes),
        )
        self._settings.tell(step)

    def _join(self, row: Row, probes: ProbeRow | None) -> dict[str, dict[str, float]]:
        layers: dict[str, dict[str, float]] = {name: {} for name in self._names}
        with np.errstate(all="ignore"):
            columns = [*self._gradients(row), *self._parameters(row, probes)]
        for statistic, values, measured in columns:
            for name, value, is_measured in zip(self._names, values.tolist(), measured.tolist(), strict=True):
                if is_measured:
                    layers[name][statistic] = value
        heard = (("output_rms", probes.output), ("output_grad_rms", probes.gradient)) if probes else ()
        for statistic, by_probe in heard:
            for probe, rms in by_probe.items():
                if self._probed[probe] in layers:  # else all its parameters are tied to another layer's
                    layers[self._probed[probe]][statistic] = rms
        return layers

    def _gradients(self, row: Row) -> Iterator[Column]:
        """Of the parameters that had a gradient; `row.statistics` (present, 6) has the COLUMNS of `numerics`."""
        layer, numel, count = self._layer[row.present], self._numel[row.present], len(self._names)
        norm, _, _, max_abs, zero_fraction, _ = on_host(row.statistics).T
        elements = np.bincount(layer, numel, count)
        largest = np.zeros(count)
        np.maximum.at(largest, layer, max_abs)
        joint = joint_norm(layer, norm, count)
        yield "grad_norm", joint, elements > 0
        yield "grad_rms", joint / np.sqrt(elements), elements > 0
        yield "grad_max", largest, elements > 0
        yield "zero_fraction", np.bincount(layer, zero_fraction * numel, count) / elements, elements > 0

    def _parameters(self, row: Row, probes: ProbeRow | None) -> Iterator[Column]:
        count = len(self._names)
        trainable = np.array(row.trainable, dtype=np.int64)
        self._norms[trainable] = weights = on_host(row.weights)
        yield "parameter_norm", joint_norm(self._layer, self._norms, count), np.ones(count, dtype=np.bool_)
        if probes:
            ratio = probes.update_ratio
            known = np.isfinite(ratio) & (weights > 0)
            layer, weights = self._layer[trainable[known]], weights[known]
            updates = joint_norm(layer, ratio[known] * weights, count)
            yield "update_ratio", updates / joint_norm(layer, weights, count), np.bincount(layer, minlength=count) > 0


def joint_norm(layer: Ints, norms: Floats, count: int) -> Floats:
    """The L2 norms (count,) over all that belongs to each layer, without a square that could overflow."""
    joint = np.zeros(count)
    np.hypot.at(joint, layer, norms)
    return joint
