"""How the gradient changes along the time steps of recurrent modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcheck_cli.diagnose.statistics import median, theil_sen
from gradcheck_cli.records import Floats, Recording
from gradcheck_cli.signals import RecurrentMatrix, Site

FEWEST_PROBES = 3
FEWEST_TIMES = 6
SMALLEST = 1e-45  # the smallest float32: an RMS of exactly 0 is at most that
FADED = 0.01


@dataclass(frozen=True)
class Passage:
    """One recurrent module's gradient from the last time step that gets one back to the first.

    `slope` is the Theil-Sen slope of log10 RMS, in decades over all time steps: positive where it grows toward the
    first. `early_slope` is that of the earlier half, over the same length. `excess` is the largest RMS over that of
    the last step, in decades. `faded` is how many time steps before the largest RMS it has shrunk to a hundredth, None
    where it never does. All are medians over the probed steps.
    """

    site: Site
    length: int
    slope: float
    early_slope: float
    excess: float
    first_rms: float
    last_rms: float
    faded: int | None
    probes: int

    @property
    def growth(self) -> float:
        """Decades by which the gradient grows toward the first time step, for the same reason all the way.

        With a loss on every step, earlier inputs gather more terms: as many as steps follow, at most. Near the end
        that looks like an explosion; in the earlier half it is a factor of two.
        """
        return min(self.slope, self.early_slope, self.excess)

    @property
    def evidence(self) -> dict[str, Any]:
        """The numbers behind a finding."""
        return {
            "kind": self.site.kind,
            "time_steps": self.length,
            "growth_decades": self.growth,
            "slope_decades": self.slope,
            "early_slope_decades": self.early_slope,
            "largest_over_last_decades": self.excess,
            "first_gradient_rms": self.first_rms,
            "last_gradient_rms": self.last_rms,
            "probes": self.probes,
        }


def passages(recording: Recording) -> list[Passage]:
    """The passage through each recurrent module that reads one way and was measured on enough steps.

    In both directions at once, the gradients of the two are added up, and what one loses the other hides.
    """
    if recording.signals is None:
        return []
    found = recording.signals.recurrence
    backwards = {p.module for p in recording.parameters if p.name.endswith("_reverse")}
    ways = [
        measure(site, found.gradient_rms[:, column], int(found.lengths[column]))
        for column, site in enumerate(found.sites)
        if site.module not in backwards
    ]
    return [way for way in ways if way]


def measure(site: Site, rms: Floats, length: int) -> Passage | None:
    """Of the RMS (rows, times) at one module; None where there are too few rows or time steps."""
    seen = [kept for row in rms if len(kept := within_reach(row)) >= FEWEST_TIMES]
    if len(seen) < FEWEST_PROBES:
        return None
    logs = [np.log10(np.maximum(row, SMALLEST)) for row in seen]
    times = np.count_nonzero(np.isfinite(rms).any(axis=0))
    distances = [fade(row) for row in logs]
    faded = float(np.median(distances))
    return Passage(
        site=site,
        length=length,
        slope=float(np.median([decades(row, len(row)) for row in logs])),
        early_slope=float(np.median([decades(row, max(4, (len(row) + 1) // 2)) for row in logs])),
        excess=float(np.median([row.max() - row[-1] for row in logs])),
        first_rms=median([row[0] for row in seen]),
        last_rms=median([row[-1] for row in seen]),
        faded=max(1, round(faded * (length - 1) / max(1, times - 1))) if np.isfinite(faded) else None,
        probes=len(seen),
    )


def within_reach(row: Floats) -> Floats:
    """The values from the first to the last time step that gets a gradient; none unless they are all finite.

    Before the first there is padding, or the gradient has faded below what float32 holds.
    """
    present = np.flatnonzero(row > 0)
    kept = row[present[0] : present[-1] + 1] if len(present) else row[:0]
    return kept if np.isfinite(kept).all() else row[:0]


def decades(logs: Floats, count: int) -> float:
    """Decades gained from the last of all values to the first, at the slope of the first `count`."""
    return -theil_sen(logs[:count]) * (len(logs) - 1)


def fade(logs: Floats) -> float:
    """How many positions before the largest value the values stay under FADED of it; infinite where they don't."""
    peak = int(np.argmax(logs))
    above = np.flatnonzero(logs[: peak + 1] > logs[peak] + np.log10(FADED))
    return float(peak - above[0] + 1) if above[0] > 0 else np.inf


def matrices_of(recording: Recording, site: Site) -> list[RecurrentMatrix]:
    """The hidden-to-hidden matrices of a recurrent module."""
    matrices = recording.signals.weights.recurrent if recording.signals else ()
    return [matrix for matrix in matrices if matrix.parameter.rpartition(".")[0] == site.module]


def has_recurrence(recording: Recording) -> bool:
    """Whether there is something recurrent to judge, as far as the recording tells."""
    signals = recording.signals
    return signals is None or bool(signals.recurrence.sites or signals.weights.recurrent)


def why_none(recording: Recording) -> str:
    """Why no passage could be measured, in words."""
    if recording.signals is None:
        return "the recording has no signals: it was made without them"
    if not recording.signals.recurrence.sites:
        return "no recurrent module was seen at work"
    return (
        f"no recurrent module that reads one way was measured on {FEWEST_PROBES} steps"
        f" with {FEWEST_TIMES} time steps and finite gradients"
    )
