"""What each layer's gradients looked like over the run, one summary a layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from gradcheck_cli.diagnose.selection import by_module
from gradcheck_cli.records import (
    Bools,
    Finding,
    Floats,
    Ints,
    LayerSummary,
    ModuleInfo,
    ParameterInfo,
    Recording,
)


def summarise(recording: Recording, findings: Sequence[Finding]) -> tuple[LayerSummary, ...]:
    """One summary per module that owns parameters, in the order of execution; those that are in no module come last.

    A module that was never probed stands after the module registered before it. Values are medians over the
    recorded rows that have one, NaN where none has.
    """
    columns = {parameter.name: index for index, parameter in enumerate(recording.parameters)}
    owned = by_module(recording.parameters)
    owners = in_execution_order([module for module in recording.modules if module.name in owned])
    inside = {module.name for module in owners}
    loose = [ModuleInfo(name, "Parameter") for name in owned if name not in inside]
    learning = {parameter.module for parameter in recording.trainable}
    return tuple(
        summarise_module(
            recording,
            module,
            np.array([columns[p.name] for p in owned[module.name]]),
            findings,
            module.name in learning,
        )
        for module in (*owners, *loose)
    )


def in_execution_order(modules: Sequence[ModuleInfo]) -> list[ModuleInfo]:
    """Modules in registration order, sorted by probe; an unprobed one stays behind its predecessor."""
    places: list[int] = []
    for module in modules:
        predecessor = places[-1] if places else -1
        places.append(predecessor if module.probe is None else module.probe)
    return [modules[index] for index in sorted(range(len(modules)), key=places.__getitem__)]


def summarise_module(
    recording: Recording, module: ModuleInfo, columns: Ints, findings: Sequence[Finding], learns: bool
) -> LayerSummary:
    """Summarise the module whose own parameters are `columns` (n,) of the recording's; `learns`: not all are frozen."""
    parameters = [recording.parameters[column] for column in columns]
    naming = [finding for finding in findings if names(finding, module.name, parameters)]
    return LayerSummary(
        name=module.name,
        type=module.type,
        parameters=tuple(parameter.name for parameter in parameters),
        numel=sum(parameter.numel for parameter in parameters),
        grad_rms=gradient_rms(recording, columns),
        grad_to_parameter=gradient_to_parameter(recording, columns),
        update_ratio=update_ratio(recording, columns),
        zero_fraction=zero_fraction(recording, columns),
        output_rms=probe_median(recording.probes.output_rms, module),
        output_grad_rms=probe_median(recording.probes.output_grad_rms, module),
        status=status(recording, columns, naming, learns),
        codes=tuple(sorted({finding.code for finding in naming})),
    )


def gradient_rms(recording: Recording, columns: Ints) -> float:
    """Median over rows of sqrt(sum norm^2 / sum numel), over the parameters that had a gradient."""
    statistics = recording.statistics
    present = statistics.has_gradient[:, columns]
    return median(divide(joint_norm(statistics.norm[:, columns], present), np.sqrt(elements(recording, columns))))


def gradient_to_parameter(recording: Recording, columns: Ints) -> float:
    """Median over rows of gradient norm / parameter norm, over the parameters that had a gradient."""
    statistics = recording.statistics
    present = statistics.has_gradient[:, columns]
    parameter_norm = joint_norm(statistics.parameter_norm[:, columns], present)
    return median(divide(joint_norm(statistics.norm[:, columns], present), parameter_norm))


def zero_fraction(recording: Recording, columns: Ints) -> float:
    """Median over rows of the fraction of gradient elements that are exactly zero."""
    statistics = recording.statistics
    numel = np.array([recording.parameters[column].numel for column in columns])
    zeros = np.where(statistics.has_gradient[:, columns], statistics.zero_fraction[:, columns] * numel, 0.0)
    return median(divide(zeros.sum(axis=1), elements(recording, columns)))


def update_ratio(recording: Recording, columns: Ints) -> float:
    """Median over probed steps of update norm / parameter norm, over the parameters that have a ratio.

    Parameter norms are those of the same step, or of the next recorded one where recording was thinned.
    """
    statistics, probes = recording.statistics, recording.probes
    if len(statistics.steps) == 0:
        return float("nan")
    rows = np.searchsorted(statistics.steps, probes.steps).clip(max=len(statistics.steps) - 1)
    parameter_norm = statistics.parameter_norm[rows][:, columns]
    ratio = probes.update_ratio[:, columns]
    present = np.isfinite(ratio) & (parameter_norm > 0)
    update_norm = np.where(present, ratio, 0.0) * parameter_norm
    return median(divide(joint_norm(update_norm, present), joint_norm(parameter_norm, present)))


def probe_median(values: Floats, module: ModuleInfo) -> float:
    """The median of the module's column of `values` (rows, probed modules); NaN where it has none."""
    return float("nan") if module.probe is None else median(values[:, module.probe])


def elements(recording: Recording, columns: Ints) -> Floats:
    """How many elements had a gradient, (rows,)."""
    numel = np.array([recording.parameters[column].numel for column in columns], dtype=np.float64)
    counts: Floats = np.where(recording.statistics.has_gradient[:, columns], numel, 0.0).sum(axis=1)
    return counts


def joint_norm(norms: Floats, present: Bools) -> Floats:
    """The L2 norm (rows,) of tensors whose norms are `norms` (rows, n); `hypot` so that no square overflows."""
    joint: Floats = np.hypot.reduce(np.where(present, norms, 0.0), axis=1)
    return joint


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, NaN where the denominator is zero."""
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def median(values: Floats) -> float:
    """The median of the values (rows,) that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def status(recording: Recording, columns: Ints, naming: Sequence[Finding], learns: bool) -> str:
    """The layer's `LayerSummary.status`, given the findings that name it."""
    if naming:
        return max(naming, key=lambda finding: finding.severity.rank).severity.value
    if not learns:
        return "frozen"
    if len(recording.statistics.steps) == 0:
        return "not recorded"
    return "ok" if recording.statistics.has_gradient[:, columns].any() else "no gradient"


def names(finding: Finding, module: str, parameters: Sequence[ParameterInfo]) -> bool:
    """Whether the finding's layer is the module, one around it, one of its parameters, or a pattern of these.

    In a pattern `*` stands for a number. "" is the root module itself and not everything within it.
    """
    if finding.layer is None:
        return False
    path = module.split(".")
    candidates = {".".join(path[:length]) for length in range(1, len(path) + 1)}
    for parameter in parameters:
        candidates.update((parameter.name, *parameter.aliases))
    pattern = re.compile(re.escape(finding.layer).replace(r"\*", "[0-9]+"))
    return finding.layer in candidates or any(pattern.fullmatch(candidate) for candidate in candidates)
