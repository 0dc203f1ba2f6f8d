"""Layers by steps: the RMS of each layer's gradient at each step, as an image, with the numbers beside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

import numpy as np

from gradcheck_cli.records import Floats, Ints, LayerSummary, Recording, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.html.drawing import Chart, Panel, Tick
from gradcheck_cli.report.html.heat_image import (
    ABSENT,
    BAD,
    FIRST_LEVEL,
    LEVELS,
    ZERO,
    decades,
    paint,
    quantise,
)
from gradcheck_cli.report.html.png import data_address
from gradcheck_cli.report.html.scale import whole_ticks
from gradcheck_cli.report.html.words import shorten, show_layer

MOST_ROWS, MOST_COLUMNS = 400, 300
MOST_NAMES = 40
ROW_HEIGHTS = (5, 22)
HEIGHTS = (60, 640)
USUAL_WIDTH, TILE_SIZE = 1000, 10
"""Pixels: of the map on a large screen, and of a pattern that can be told from another."""
SIGNS = (("absent", "no gradient"), ("zeros", "exactly 0"), ("nonfinite", "not finite"))


def heat_map(report: Report, key: str) -> Chart | None:
    """None where no step has statistics. Large ones are folded, and the notes say how."""
    recording = report.recording
    if recording is None or not report.layers or not len(recording.statistics.steps):
        return None
    cells = layer_rms(recording, report.layers)
    rows = np.array_split(np.arange(len(cells)), min(len(cells), MOST_ROWS))
    columns = np.array_split(np.arange(cells.shape[1]), min(cells.shape[1], MOST_COLUMNS))
    folded = fold(cells, rows, columns)
    low, high = decades(folded)
    height = int(np.clip(len(rows) * np.clip(HEIGHTS[1] / len(rows), *ROW_HEIGHTS), *HEIGHTS))
    tiles = (max(1, round(height / len(rows) / TILE_SIZE)), max(1, round(USUAL_WIDTH / len(columns) / TILE_SIZE)))
    names = [name_of([report.layers[index] for index in row]) for row in rows]
    steps = recording.statistics.steps
    return Chart(
        key,
        "Gradient RMS by layer and step",
        describe(cells, names, steps.tolist(), low, high),
        [Panel("", height, name_ticks(names, height), image=data_address(paint(folded, low, high, tiles)))],
        [Tick(at, f"{int(steps[columns[at_column][0]]):,}") for at, at_column in step_ticks(len(columns))],
        "step",
        kind="cells",
        legend=[entry for entry, code in zip(SIGNS, (ABSENT, ZERO, BAD), strict=True) if has(cells, code)],
        notes=notes(rows, columns),
        data={
            "rows": names,
            "labels": [label(steps[column].tolist()) for column in columns],
            "low": low,
            "high": high,
            "first": FIRST_LEVEL,
            "levels": LEVELS,
            "cells": base64.b64encode(quantise(folded, low, high).astype("<u2").tobytes()).decode("ascii"),
            "words": ["no gradient", "exactly 0", "not finite"],
        },
    )


def layer_rms(recording: Recording, layers: Sequence[LayerSummary]) -> Floats:
    """Gradient RMS (layers, rows): sqrt(sum norm^2 / sum numel) over what had a gradient; NaN where nothing had.

    Infinite where an element was not finite.
    """
    at = {parameter.name: index for index, parameter in enumerate(recording.parameters)}
    return np.stack([one_layer(recording, [at[name] for name in layer.parameters]) for layer in layers])


def one_layer(recording: Recording, columns: Sequence[int]) -> Floats:
    """Of one layer (rows,)."""
    statistics = recording.statistics
    present = statistics.has_gradient[:, columns]
    norm = np.where(present, statistics.norm[:, columns], 0.0)
    bad = present & (~np.isfinite(norm) | (statistics.nonfinite[:, columns] > 0))
    numel = np.array([recording.parameters[column].numel for column in columns], dtype=np.float64)
    counted = np.where(present, numel, 0.0).sum(axis=1)
    total = np.hypot.reduce(np.where(bad, 0.0, norm), axis=1)
    rms = total / np.sqrt(np.where(counted > 0, counted, np.nan))
    return np.where(bad.any(axis=1), np.inf, rms)


def fold(cells: Floats, rows: Sequence[Ints], columns: Sequence[Ints]) -> Floats:
    """The largest of several steps, so that no spike is lost; then the median of several layers."""
    if len(columns) < cells.shape[1]:
        cells = np.stack([largest(cells[:, column]) for column in columns], axis=1)
    if len(rows) < len(cells):
        cells = np.stack([middle(cells[row]) for row in rows])
    return cells


def largest(cells: Floats) -> Floats:
    """Over the last axis, NaN where there is nothing else."""
    filled = np.where(np.isnan(cells), -np.inf, cells).max(axis=1)
    return np.where(np.isneginf(filled), np.nan, filled)


def middle(cells: Floats) -> Floats:
    """The lower median over the first axis of what is not NaN; infinite where anything is."""
    ordered = np.sort(cells, axis=0)  # NaN comes last
    known = (~np.isnan(ordered)).sum(axis=0)
    chosen = np.take_along_axis(ordered, np.maximum(known - 1, 0)[None, :] // 2, axis=0)[0]
    return np.where(np.isinf(cells).any(axis=0), np.inf, chosen)


def has(cells: Floats, code: int) -> bool:
    """Whether any cell is of that kind."""
    return bool((quantise(cells, 0.0, 1.0) == code).any())


def name_of(layers: Sequence[LayerSummary]) -> str:
    """A layer's name, or the first and the last of several."""
    names = [show_layer(layer.name) for layer in layers]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def label(steps: Sequence[int]) -> str:
    """`step 7`, or `steps 8 to 11`."""
    return f"step {steps[0]:,}" if len(steps) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"


def name_ticks(names: Sequence[str], height: int) -> list[Tick]:
    """Names of as many rows as there is room for, from the top."""
    every = max(math.ceil(len(names) / MOST_NAMES), math.ceil(14 * len(names) / height))
    return [
        Tick(round((index + 0.5) * height / len(names), 1), shorten(names[index], 24), names[index])
        for index in range(0, len(names), every)
    ]


def step_ticks(columns: int) -> list[tuple[float, int]]:
    """Percent and column of the ticks."""
    return [(round((column + 0.5) / columns * 100, 3), column) for column in whole_ticks(0, columns - 1, 6)]


def notes(rows: Sequence[Ints], columns: Sequence[Ints]) -> list[str]:
    """What is folded."""
    several_rows, several_columns = max(map(len, rows)), max(map(len, columns))
    sentences = []
    if several_rows > 1:
        sentences.append(f"each row stands for up to {several_rows} neighbouring layers: their median")
    if several_columns > 1:
        sentences.append(f"each column stands for up to {several_columns} recorded steps: the largest of them")
    return sentences


def describe(cells: Floats, names: Sequence[str], steps: Sequence[int], low: float, high: float) -> str:
    """For those who do not see it."""
    layers, kept = figures.plural(len(cells), "layer"), figures.plural(cells.shape[1], "recorded step")
    parts = [f"{layers} by {kept}, layer {names[0]} at the top, {names[-1]} at the bottom."]
    parts.append(f"Colours run from {10**low:.1e} (dark) to {10**high:.1e} (bright) on a log scale.")
    bad = np.isinf(cells)
    if bad.any():
        first = f"first at step {steps[int(np.flatnonzero(bad.any(axis=0))[0])]:,}"
        parts.append(f"Not finite in {figures.plural(int(bad.any(axis=1).sum()), 'layer')}, {first}.")
    for what, flags in (("Without a gradient throughout", np.isnan(cells)), ("Exactly 0 throughout", cells == 0)):
        if number := int(flags.all(axis=1).sum()):
            parts.append(f"{what}: {figures.plural(number, 'layer')}.")
    return " ".join(parts)
