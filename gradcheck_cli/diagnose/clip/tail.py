"""How heavy the tail of the norms is."""

from __future__ import annotations

import math

import numpy as np

from gradcheck_cli.clip_advice import Interval, Tail
from gradcheck_cli.diagnose.clip.quantiles import Z, rank_of
from gradcheck_cli.records import Floats

THRESHOLD = 0.90
LEAST_EXCEEDANCES = 10
LARGEST_SHAPE = 0.45
ALIKE = 1e-6
"""Relative: norms that differ by less are float32 rounding."""


def fit_tail(norms: Floats, n_eff: float) -> Tail | None:
    """Fit a generalised Pareto distribution to what exceeds p90 of norms (n,), worth `n_eff` independent ones there.

    None where fewer than LEAST_EXCEEDANCES do, or where they are all alike. Peaks over threshold: Pickands,
    "Statistical inference using extreme order statistics", Annals of Statistics 3 (1975).
    """
    n = len(norms)
    ordered = np.sort(norms)
    threshold = float(ordered[rank_of(THRESHOLD, n) - 1]) if n else 0.0
    largest = ordered[ordered > threshold]
    if len(largest) < LEAST_EXCEEDANCES or largest[-1] <= largest[0] * (1 + ALIKE):
        return None
    excesses = largest - threshold
    unit = float(excesses[-1])
    shape, scale = fit_pareto(excesses / unit)
    error = shape_error(shape, max(1.0, len(excesses) * n_eff / n))
    p99 = threshold + unit * exceeded_by(shape, scale, 0.01 * n / len(excesses))
    interval = Interval(shape - Z * error, shape + Z * error)
    return Tail(shape, interval, threshold, len(excesses), p99, float(ordered[rank_of(0.99, n) - 1]))


def fit_pareto(excesses: Floats) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution from sorted excesses (m,), by probability-weighted moments.

    With a0 = mean x, a1 = mean of x_(i) (m - i) / (m - 1): shape = 2 - a0 / (a0 - 2 a1), scale = 2 a0 a1 / (a0 - 2 a1).
    Hosking and Wallis, "Parameter and quantile estimation for the generalized Pareto distribution", Technometrics
    29 (1987), whose k is minus the shape.
    """
    m = len(excesses)
    a0 = float(excesses.mean())
    a1 = float((excesses * np.arange(m - 1, -1, -1)).mean()) / (m - 1)
    return 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)


def shape_error(shape: float, m: float) -> float:
    """Asymptotic standard error of that shape from m independent excesses.

    Hosking and Wallis (1987), section 3; it holds below a shape of 1/2, so a heavier one is taken at LARGEST_SHAPE.
    """
    k = -min(shape, LARGEST_SHAPE)
    return math.sqrt((1 + k) * (2 + k) ** 2 * (1 + k + 2 * k**2) / ((1 + 2 * k) * (3 + 2 * k)) / m)


def exceeded_by(shape: float, scale: float, share: float) -> float:
    """The excess that this share of the excesses is beyond; 0 for a share of 1 or more."""
    if share >= 1:
        return 0.0
    return -scale * math.log(share) if abs(shape) < 1e-9 else scale / shape * (share**-shape - 1)
