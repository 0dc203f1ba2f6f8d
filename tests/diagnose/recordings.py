"""Hand-written recordings of healthy small runs, so that a test states only what is different."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

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

Value = float | None | Sequence[float | None] | Floats
Values = Mapping[str, Value]

MLP = {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (2, 8), "fc2.bias": (2,)}


def make_recording(
    *,
    steps: int = 30,
    parameters: Mapping[str, tuple[int, ...]] = MLP,
    frozen: Collection[str] = (),
    not_optimized: Collection[str] = (),
    modules: Mapping[str, str] | None = None,
    probed: Sequence[str] | None = None,
    compiled: Collection[str] = (),
    loss: Value = None,
    grad_norm: Value = None,
    grad_norm_clipped: Value = None,
    lr: Value = 1e-3,
    skipped: Collection[int] = (),
    loss_scale: Value = None,
    batch: Sequence[int] | None = None,
    epoch: Sequence[int] | None = None,
    nonfinite_inputs: Mapping[int, int] | None = None,
    examples: Value = None,
    nonfinite_input: str = "",
    recorded: Sequence[int] | None = None,
    norms: Values | None = None,
    max_abs: Values | None = None,
    nonfinite: Values | None = None,
    parameter_norm: Values | None = None,
    final_parameter_norm: Values | None = None,
    probe_steps: Sequence[int] | None = None,
    update_ratio: Values | None = None,
    parameter_max: Values | None = None,
    output_rms: Values | None = None,
    output_grad_rms: Values | None = None,
    **run: Any,
) -> Recording:
    """A recording of a run in which nothing is wrong, except for what the arguments say.

    A value is one number for all steps or one a step; in `norms` None is a gradient that was not there, and a
    norm that is not finite counts as one non-finite element.
    Mappings go by the name of a parameter, or of a module for the outputs; names left out keep their defaults.
    `modules` gives types, by name, to others than the default; modules are made of the parameters' names.
    `probed` lists modules in the order of execution, by default all that own parameters. `recorded` are the steps
    that have statistics (all), `probe_steps` the sampled ones (three, then every tenth); the values of the
    probes are one number or one for each sampled step. Further keywords are fields of RunInfo.
    With `grad_norm` but no `norms` the parameters share it equally; without, it follows from `norms`.
    """
    infos = make_parameters(parameters, frozen, not_optimized)
    names = [info.name for info in infos]
    trainable = [info.name for info in infos if info.requires_grad]
    owners = list(dict.fromkeys(info.module for info in infos))
    order = owners if probed is None else list(probed)
    rows = list(range(steps)) if recorded is None else list(recorded)
    probe_rows = [s for s in range(steps) if s < 3 or s % 10 == 0] if probe_steps is None else list(probe_steps)
    sizes = {info.name: float(np.sqrt(info.numel)) for info in infos}

    if norms is None and grad_norm is not None:
        share = spread(grad_norm, steps) / np.sqrt(max(1, len(trainable)))
        all_norms: dict[str, Value] = dict.fromkeys(trainable, share)
    else:
        all_norms = {**dict.fromkeys(trainable, 0.1 * ripple(steps)), **(norms or {})}
    norm = table(all_norms, names, steps)
    has_gradient = table({name: present(value, steps) for name, value in all_norms.items()}, names, steps) == 1
    total = np.hypot.reduce(np.where(has_gradient, norm, 0), axis=1)
    if grad_norm is not None:
        total = spread(grad_norm, steps)
    broken = {name: ~np.isfinite(norm[:, i]) * 1.0 for i, name in enumerate(names)}
    counts = table(broken | dict(nonfinite or {}), names, steps)
    uses_scaler = bool(run.get("uses_scaler", loss_scale is not None))
    scale = loss_scale if loss_scale is not None else (65536.0 if uses_scaler else None)

    series = Series(
        loss=0.3 + 2.0 * np.exp(-np.arange(steps) / 30) * ripple(steps) if loss is None else spread(loss, steps),
        grad_norm=total,
        grad_norm_clipped=total if grad_norm_clipped is None else spread(grad_norm_clipped, steps),
        lr=spread(lr, steps).reshape(steps, 1),
        seconds=np.full(steps, 0.01),
        overhead=np.full(steps, 0.0002),
        skipped=np.isin(np.arange(steps), list(skipped)),
        loss_scale=spread(scale, steps),
        batch=np.array(np.arange(steps) % 16 if batch is None else batch, dtype=np.int64),
        epoch=np.array(np.arange(steps) // 16 if epoch is None else epoch, dtype=np.int64),
        nonfinite_inputs=np.array([(nonfinite_inputs or {}).get(step, 0) for step in range(steps)], dtype=np.int64),
        examples=spread(0 if examples is None else examples, steps).astype(np.int64),
    )
    rms = norm / np.array([sizes[name] for name in names])
    own_norm = table({name: 0.1 * sizes[name] for name in names} | dict(parameter_norm or {}), names, steps)
    statistics = ParameterStatistics(
        steps=np.array(rows, dtype=np.int64),
        norm=norm[rows],
        mean=0.01 * rms[rows],
        std=rms[rows],
        max_abs=table({name: 3 * rms[:, i] for i, name in enumerate(names)} | dict(max_abs or {}), names, steps)[rows],
        zero_fraction=np.where(np.isnan(norm), np.nan, (norm == 0).astype(float))[rows],
        nonfinite=np.where(has_gradient, counts, np.nan)[rows],
        parameter_norm=own_norm[rows],
        has_gradient=has_gradient[rows],
    )
    probes = Probes(
        steps=np.array(probe_rows, dtype=np.int64),
        update_ratio=table(dict.fromkeys(trainable, 1e-3) | dict(update_ratio or {}), names, len(probe_rows)),
        parameter_max=table(dict.fromkeys(names, 0.3) | dict(parameter_max or {}), names, len(probe_rows)),
        output_rms=table(dict.fromkeys(order, 1.0) | dict(output_rms or {}), order, len(probe_rows)),
        output_grad_rms=table(dict.fromkeys(order, 1e-2) | dict(output_grad_rms or {}), order, len(probe_rows)),
    )
    last = {name: float(own_norm[-1, i]) if steps else 0.1 * sizes[name] for i, name in enumerate(names)}
    about: dict[str, Any] = (
        {"steps_requested": steps, "optimizer": "AdamW", "precision": "fp32"} | run | {"uses_scaler": uses_scaler}
    )
    return Recording(
        run=RunInfo(target="train.py:build", device="cpu", seed=0, **about),
        parameters=infos,
        modules=make_modules(owners, order, modules or {}, compiled),
        series=series,
        statistics=statistics,
        probes=probes,
        final_parameter_norm=table(last | dict(final_parameter_norm or {}), names, 1)[0],
        nonfinite_input=nonfinite_input,
    )


def make_parameters(
    shapes: Mapping[str, tuple[int, ...]], frozen: Collection[str], not_optimized: Collection[str]
) -> tuple[ParameterInfo, ...]:
    """Float32 parameters; a frozen one is in no optimizer either."""
    return tuple(
        ParameterInfo(
            name=name,
            module=name.rpartition(".")[0],
            shape=shape,
            numel=int(np.prod(shape)),
            dtype="float32",
            requires_grad=name not in frozen,
            in_optimizer=name not in frozen and name not in not_optimized,
        )
        for name, shape in shapes.items()
    )


def make_modules(
    owners: Sequence[str], order: Sequence[str], types: Mapping[str, str], compiled: Collection[str]
) -> tuple[ModuleInfo, ...]:
    """The named modules and all that contain them, each container before its contents."""
    found = {"": "Model"}
    for name in [*owners, *types, *order]:
        path = name.split(".")
        for length in range(1, len(path) + 1):
            found.setdefault(".".join(path[:length]), "Sequential")
    for name in owners:
        found[name] = "Linear" if name else "Model"
    found |= types
    return tuple(
        ModuleInfo(name, kind, order.index(name) if name in order else None, name in compiled)
        for name, kind in found.items()
    )


def ripple(length: int) -> Floats:
    """A healthy run's unevenness: within 10 % of one, the same each time, without a trend."""
    return 1 + 0.1 * np.sin(2.4 * np.arange(length, dtype=np.float64))


def spread(value: Value, length: int) -> Floats:
    """One number a step; None is NaN."""
    if value is None or isinstance(value, (int, float)):
        return np.full(length, np.nan if value is None else value, dtype=np.float64)
    values = np.array([np.nan if v is None else v for v in value], dtype=np.float64)
    assert len(values) == length, f"{len(values)} values for {length} steps"
    return values


def present(value: Value, length: int) -> Floats:
    """1 where there is a value, even if it is NaN; 0 where it is None."""
    if value is None or isinstance(value, (int, float)):
        return np.full(length, float(value is not None))
    return np.array([float(v is not None) for v in value])


def table(values: Values, names: Sequence[str], length: int) -> Floats:
    """Columns in the order of `names`; a name without a value is NaN."""
    unknown = set(values) - set(names)
    assert not unknown, f"no such name: {unknown}"
    columns = [spread(values.get(name), length) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((length, 0))
