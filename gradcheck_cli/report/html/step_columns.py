"""Steps side by side: a column for each, or for several where there are more than there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradcheck_cli.records import Bools, Floats, Ints
from gradcheck_cli.report import figures
from gradcheck_cli.report.html.drawing import spread

MOST_COLUMNS = 600


def split_steps(steps: int) -> list[Ints]:
    """The indices of all steps, in up to MOST_COLUMNS columns."""
    return np.array_split(np.arange(steps), min(steps, MOST_COLUMNS))


@dataclass(frozen=True)
class Curve:
    """What is drawn of a series, a column for one or more steps: median, least and largest finite value, NaN where
    there is none, and whether any was not finite; all (columns,).
    """

    middle: Floats
    low: Floats
    high: Floats
    bad: Bools


def join(values: Floats, columns: Sequence[Ints]) -> Curve:
    """The values (steps,) column by column."""
    known = np.where(np.isfinite(values), values, np.nan)
    parts = [known[column][~np.isnan(known[column])] for column in columns]
    low, middle, high = (
        np.array([float(reduce(part)) if len(part) else np.nan for part in parts])
        for reduce in (np.min, np.median, np.max)
    )
    bad = np.array([not np.isfinite(values[column]).all() for column in columns])
    return Curve(middle, low, high, bad)


def any_of(flags: Bools, columns: Sequence[Ints]) -> Bools:
    """Whether any step of each column is flagged (columns,)."""
    return np.array([bool(flags[column].any()) for column in columns])


def index_of(step: int, columns: Sequence[Ints]) -> int:
    """The column of a step."""
    return int(np.searchsorted([column[-1] for column in columns], step))


def place(step: int, columns: Sequence[Ints]) -> float:
    """The percent at which a step is drawn."""
    return float(spread(len(columns))[index_of(step, columns)])


def label_of(column: Ints) -> str:
    """`step 7`, or `steps 120 to 129`."""
    return f"step {column[0]:,}" if len(column) == 1 else f"steps {column[0]:,} to {column[-1]:,}"


def tell(values: Floats) -> str:
    """One number, the range of several, or that there is none."""
    if not len(values):
        return ""
    low, high = float(np.min(values)), float(np.max(values))  # NaN and Inf come through
    return figures.plain(low) if low == high or np.isnan(low) else f"{figures.plain(low)} to {figures.plain(high)}"
