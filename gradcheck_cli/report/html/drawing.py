"""What a chart is made of: plain values that the template turns into SVG.

Places along the x axis are percents of the width, so that a chart fits every screen; along the y axis, pixels from the
top of a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradcheck_cli.records import Floats

UNITS = 1000
"""Lines are drawn in a square of so many units, which is stretched over the panel."""


@dataclass(frozen=True)
class Line:
    """`path` is SVG path data in units; `kind` its class in the style sheet; with `area` it is filled."""

    path: str
    kind: str
    label: str = ""
    area: bool = False


@dataclass(frozen=True)
class Mark:
    """A sign at a place; `title` is told when it is pointed at."""

    x: float
    y: float
    kind: str
    title: str


@dataclass(frozen=True)
class Level:
    """A horizontal line across the panel; its label stands at `label_y`, to the right of the panel."""

    y: float
    label_y: float
    label: str
    kind: str = "candidate"


@dataclass(frozen=True)
class Post:
    """A vertical line down to the bottom, its name beside its top at `y`, on the left of it if it is far right."""

    x: float
    y: float
    label: str
    kind: str


@dataclass(frozen=True)
class Box:
    """A rectangle from the top or from `y` to the bottom."""

    x: float
    width: float
    y: float = 0.0
    height: float = 0.0
    kind: str = "bar"
    title: str = ""


@dataclass(frozen=True)
class Tick:
    """A label at a place on an axis; `full` is the whole of a label that is cut short."""

    at: float
    label: str
    full: str = ""


@dataclass(frozen=True)
class Panel:
    """One plot of a chart; all share the x axis."""

    title: str
    height: int
    y_ticks: Sequence[Tick] = ()
    lines: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    levels: Sequence[Level] = ()
    posts: Sequence[Post] = ()
    boxes: Sequence[Box] = ()
    scale: str = ""
    image: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure: `title` and `description` say what it shows to those who do not see it, `notes` what to know of it.

    `key` names it in the page. `slanted` turns the labels of the x axis, which are then `label_length` characters long
    at most. `data` is what its script reads, as JSON.
    """

    key: str
    title: str
    description: str
    panels: Sequence[Panel]
    x_ticks: Sequence[Tick] = ()
    x_label: str = ""
    slanted: bool = False
    label_length: int = 0
    kind: str = "columns"
    legend: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def draw_line(x: Floats, shares: Floats) -> str:
    """Path data through percents (n,) and shares of the height (n,); a NaN interrupts it, a lone point is a dot."""
    parts: list[str] = []
    pen_down = False
    for across, share in zip(x.tolist(), shares.tolist(), strict=True):
        if np.isnan(share):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{point(across, share)}" + ("" if pen_down else "h0"))
        pen_down = True
    return "".join(parts)


def draw_band(x: Floats, low: Floats, high: Floats) -> str:
    """Path data of the area between two lines, all (n,), where both have a place."""
    known = ~(np.isnan(low) | np.isnan(high))
    there = [point(a, b) for a, b in zip(x[known].tolist(), high[known].tolist(), strict=True)]
    back = [point(a, b) for a, b in zip(x[known][::-1].tolist(), low[known][::-1].tolist(), strict=True)]
    return f"M{'L'.join(there + back)}z" if there else ""


def point(across: float, share: float) -> str:
    """`12.5 300`, in units from the upper left corner."""
    return f"{across * UNITS / 100:.5g} {(1 - share) * UNITS:.4g}"


def spread(number: int) -> Floats:
    """Percents (number,) of the middles of as many equal columns."""
    return (np.arange(number) + 0.5) / max(1, number) * 100
