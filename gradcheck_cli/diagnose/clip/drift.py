"""Whether the norms of a run go up or down."""

from __future__ import annotations

import math

import numpy as np

from gradcheck_cli.clip_advice import Drift, Interval
from gradcheck_cli.diagnose.clip.quantiles import Z
from gradcheck_cli.diagnose.clip.warmup import log_norms
from gradcheck_cli.diagnose.statistics import mann_kendall
from gradcheck_cli.records import Floats

BLOCKS = 10
PER = 100
SIGNIFICANT = 0.05
DECIMALS = 9


def find_drift(norms: Floats) -> Drift | None:
    """Test the medians of BLOCKS consecutive blocks of log norms (n,) for a trend; None with fewer than 2 a block.

    `change` is the factor over PER steps, with the 95 % interval of Theil and Sen's slope.
    """
    if len(norms) < 2 * BLOCKS:
        return None
    medians = block_medians(log_norms(norms))
    p = mann_kendall(np.round(medians, DECIMALS)).p  # equal ones are then equal in every unit
    slope, low, high = (value * BLOCKS * PER / len(norms) for value in slope_interval(medians))
    return Drift(p < SIGNIFICANT, p, factor(slope), Interval(factor(low), factor(high)))


def block_medians(logs: Floats) -> Floats:
    """Medians of up to BLOCKS consecutive blocks of like length of log norms (n,), n >= 2."""
    return np.array([float(np.median(block)) for block in np.array_split(logs, min(BLOCKS, len(logs)))])


def slope_interval(values: Floats) -> tuple[float, float, float]:
    """Theil-Sen slope per index of values (n,), n >= 2, and the ends of its 95 % interval.

    The ends are the slopes of the pairs ranked M1 = (N - Z sqrt(Var S)) / 2 and N - M1 + 1 of all N, from 1. Sen,
    "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968), section 4; Gilbert, "Statistical
    Methods for Environmental Pollution Monitoring" (1987), section 16.5.1.
    """
    n = len(values)
    first, second = np.triu_indices(n, k=1)
    slopes = np.sort((values[second] - values[first]) / (second - first))
    reach = Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    ranks = [(len(slopes) - reach) / 2 - 1, (len(slopes) + reach) / 2]  # from 0; between two slopes, linear
    low, high = np.interp(ranks, np.arange(len(slopes)), slopes).tolist()
    return float(np.median(slopes)), low, high


def factor(log_change: float) -> float:
    """The factor that a change of the logarithm is, kept finite."""
    return math.exp(min(700.0, max(-700.0, log_change)))
