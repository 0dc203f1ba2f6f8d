"""What a baseline holds of a recording, apart from findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import numpy.typing as npt

from gradcheck_cli.baseline import LayerMeasure, Measures, NormMeasure, ShareMeasure, SlopeMeasure
from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.diagnose.flow import FEWEST_LAYERS, Flow, flows, median_slope
from gradcheck_cli.diagnose.layers import divide, elements, joint_norm
from gradcheck_cli.diagnose.rules.dead_units import measure_deadness
from gradcheck_cli.diagnose.rules.saturated_activation import measure_saturation, why_not
from gradcheck_cli.diagnose.selection import by_module
from gradcheck_cli.diagnose.statistics import robust_sigma
from gradcheck_cli.records import Floats, ModuleInfo, Recording
from gradcheck_cli.signals import Site


def measure(recording: Recording) -> Measures:
    """Everything of a recording that is compared; of clipping, see `measure_clipping`."""
    return Measures(
        layers=tuple(measure_layers(recording)),
        slopes=tuple(measure_slope(recording, flow) for flow in flows(recording) if np.isfinite(flow.backward)),
        shares=tuple(measure_shares(recording)),
    )


def measure_clipping(advice: ClipAdvice) -> NormMeasure | None:
    """The recommended max_norm, if there is one."""
    if advice.max_norm is None:
        return None
    low, high = advice.interval or (None, None)
    return NormMeasure(advice.max_norm, low, high)


def measure_names(recording: Recording) -> Iterator[LayerMeasure]:
    """The layers without what was measured of them."""
    for layer in measure_layers(recording):
        yield replace(layer, gradient=None, noise=0.0, reached=0.0, rows=0)


def measure_layers(recording: Recording) -> Iterator[LayerMeasure]:
    """Every module with parameters of its own, in the order in which they were registered."""
    columns = {parameter.name: index for index, parameter in enumerate(recording.parameters)}
    owned = by_module(recording.parameters)
    modules = [module for module in recording.modules if module.name in owned]
    sizes = {
        module.name: gradient_rms(recording, [columns[one.name] for one in owned[module.name]]) for module in modules
    }
    relative = relate(sizes)
    for module in modules:
        shapes = tuple(parameter.shape for parameter in owned[module.name])
        yield summarise(module, shapes, sizes[module.name], relative[module.name])


def gradient_rms(recording: Recording, columns: Sequence[int]) -> Floats:
    """RMS (rows,) of the gradient of some parameters together; 0 where there is none, NaN where it is not finite."""
    chosen, statistics = np.array(columns, dtype=np.int64), recording.statistics
    norms = joint_norm(statistics.norm[:, chosen], statistics.has_gradient[:, chosen])
    rms = divide(norms, np.sqrt(elements(recording, chosen)))
    none = ~statistics.has_gradient[:, chosen].any(axis=1)
    return np.where(none, 0.0, np.where(np.isfinite(rms), rms, np.nan))


def relate(sizes: dict[str, Floats]) -> dict[str, Floats]:
    """log10 of each layer's RMS (rows,) over the median of all layers on the same step; NaN where it is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = {name: np.where(rms > 0, np.log10(rms), np.nan) for name, rms in sizes.items()}
    table = np.array(list(logs.values()))
    centre = np.array([np.nanmedian(row) if np.isfinite(row).any() else np.nan for row in table.T])
    return {name: row - centre for name, row in logs.items()}


def summarise(module: ModuleInfo, shapes: tuple[tuple[int, ...], ...], rms: Floats, relative: Floats) -> LayerMeasure:
    """One layer, of its RMS (rows,) and what that is relative to all layers."""
    known = relative[np.isfinite(relative)]
    return LayerMeasure(
        name=module.name,
        type=module.type,
        shapes=shapes,
        gradient=float(np.median(known)) if known.size else None,
        noise=spread(known),
        reached=float((rms != 0).mean()) if rms.size else 0.0,
        rows=len(rms),
    )


def measure_slope(recording: Recording, flow: Flow) -> SlopeMeasure:
    """The depth slope of a group, and how much it varies between the probed steps."""
    modules = {module.name or module.type: (column, module) for column, module in enumerate(recording.probed)}
    columns = [modules[name][0] for name in flow.layers]
    rows = recording.probes.output_grad_rms[:, columns]
    complete = rows[np.isfinite(rows).sum(axis=1) >= FEWEST_LAYERS]
    return SlopeMeasure(
        group=flow.group,
        type=modules[flow.layers[0]][1].type,
        first_layer=flow.layers[0],
        last_layer=flow.layers[-1],
        decades=flow.backward,
        noise=spread([median_slope(row[None]) for row in complete]),
    )


def spread(values: npt.ArrayLike) -> float:
    """The robust standard deviation of what is finite, 0 where nothing is."""
    sigma = robust_sigma(values)
    return sigma if np.isfinite(sigma) else 0.0


def measure_shares(recording: Recording) -> Iterator[ShareMeasure]:
    """Dead and saturated shares by function, where activations were heard."""
    if why_not(recording):
        return
    dead = (
        ShareMeasure("dead", one.layer, one.kind, one.share, sqrt(one.share * (1 - one.share) / max(one.units, 1)))
        for one in measure_deadness(recording)
        if one.is_known
    )
    saturated = (
        ShareMeasure("saturated", one.layer, one.site.kind, one.fraction, vary(recording, one.site))
        for one in measure_saturation(recording)
    )
    yield from number(dead)
    yield from number(saturated)


def vary(recording: Recording, site: Site) -> float:
    """How much a function's saturated share varies from one probed step to the next."""
    assert recording.signals is not None
    table = recording.signals.activations
    return spread(table.saturated[:, table.sites.index(site)])


def number(shares: Iterable[ShareMeasure]) -> Iterator[ShareMeasure]:
    """The same, with a number where one function stands more than once behind a layer."""
    seen: Counter[tuple[str, str]] = Counter()
    for one in shares:
        seen[one.layer, one.function] += 1
        times = seen[one.layer, one.function]
        yield one if times == 1 else replace(one, function=f"{one.function} {times}")
