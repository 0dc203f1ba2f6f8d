"""Thresholds of clipping in a chart: where they lie, and one label for those that lie close together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Report
from gradcheck_cli.report import clip_histogram, figures
from gradcheck_cli.report.html.drawing import Level
from gradcheck_cli.report.html.scale import Scale

NEAREST = 14
"""Pixels between two labels."""
BEYOND = 3.0


def name_thresholds(report: Report) -> dict[str, float]:
    """What the run clipped at, or the candidates of the advice, by name; none is 0."""
    if report.clip is not None:
        named = clip_histogram.thresholds(report.clip)
    else:
        named = {} if report.run.max_norm is None else {"this run's max norm": report.run.max_norm}
    return {name: value for name, value in named.items() if value > 0 and np.isfinite(value)}


def within(named: Mapping[str, float], norms: Iterable[float]) -> tuple[dict[str, float], dict[str, float]]:
    """Those near enough to the norms to be drawn with them, and the others."""
    known = [norm for norm in norms if norm > 0 and np.isfinite(norm)]
    low, high = (min(known) / BEYOND, max(known) * BEYOND) if known else (0.0, 0.0)
    near = {name: value for name, value in named.items() if low <= value <= high}
    return near, {name: value for name, value in named.items() if name not in near}


def draw_levels(named: Mapping[str, float], scale: Scale, height: int, advice: ClipAdvice | None) -> list[Level]:
    """A line for each value, with labels that do not cover one another."""
    ordered = sorted(merge(named).items(), key=lambda pair: -pair[1])
    lines = [round((1 - scale.place_one(value)) * height, 1) for _, value in ordered]
    return [
        Level(y, at, describe(name, value), kind_of(value, advice))
        for (name, value), y, at in zip(ordered, lines, dodge(lines, height), strict=True)
    ]


def dodge(lines: Sequence[float], height: int) -> list[float]:
    """Where labels stand, from the top down: beside their lines, but NEAREST pixels apart and within the height."""
    places: list[float] = []
    for line in lines:
        places.append(max([line, *(place + NEAREST for place in places[-1:])]))
    for index in reversed(range(len(places))):
        below = places[index + 1] if index + 1 < len(places) else height + NEAREST / 2
        places[index] = round(min(places[index], below - NEAREST), 1)
    return places


def kind_of(value: float, advice: ClipAdvice | None) -> str:
    """Whether it is what the run clips at, or should, or only a candidate."""
    return "chosen" if advice is None or (advice.verdict == "clip" and value == advice.max_norm) else "candidate"


def merge(values: Mapping[str, float]) -> dict[str, float]:
    """Values by name: the names of equal ones together."""
    names: dict[float, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return {", ".join(together): value for value, together in names.items()}


def describe(name: str, value: float) -> str:
    """`p95 0.83`; only once where the name is the value."""
    return name if name == f"{value:.1f}" else f"{name} {figures.norm(value)}"


def describe_absent(named: Mapping[str, float]) -> list[str]:
    """That some are not drawn."""
    listed = ", ".join(describe(name, value) for name, value in named.items())
    return [f"too far from the norms to be drawn: {listed}"] if named else []
