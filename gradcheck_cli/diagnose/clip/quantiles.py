"""Percentiles of an autocorrelated series, with intervals that need no distribution."""

from __future__ import annotations

import math

import numpy as np

from gradcheck_cli.clip_advice import ClipQuantile, Interval
from gradcheck_cli.diagnose.clip.dependence import count_independent
from gradcheck_cli.records import Floats

Z = 1.959964
"""The 97.5 % quantile of the standard normal distribution."""


def estimate_quantile(norms: Floats, percentile: float) -> ClipQuantile:
    """A percentile of finite norms (n,) in order of time, and the interval that covers it in 95 of 100 series.

    The value is the order statistic round(p (n + 1)), which a further norm exceeds with the probability 1 - p; the
    interval's ends are those at p +- Z sqrt(p (1 - p) / n_eff). Distribution-free: David and Nagaraja, "Order
    Statistics" (2003), section 7.1; for a dependent series n_eff takes the place of n.
    """
    needed, n_eff = steps_needed(percentile), count_independent(norms, percentile)
    if n_eff < needed:
        return ClipQuantile(percentile, None, None, n_eff, needed)
    ordered, p, n = np.sort(norms), percentile / 100, len(norms)
    reach = Z * math.sqrt(p * (1 - p) / n_eff)
    low, high = max(1, round(n * (p - reach))), min(n, round(n * (p + reach)) + 1)
    interval = Interval(float(ordered[low - 1]), float(ordered[high - 1]))
    return ClipQuantile(percentile, take_quantile(norms, percentile), interval, n_eff, needed)


def take_quantile(norms: Floats, percentile: float) -> float:
    """The order statistic of norms (n,), n >= 1, that stands for the percentile."""
    return float(np.sort(norms)[rank_of(percentile / 100, len(norms)) - 1])


def rank_of(p: float, n: int) -> int:
    """Which of n ordered values, from 1, stands for the quantile p."""
    return min(n, max(1, round(p * (n + 1))))


def steps_needed(percentile: float) -> int:
    """So many independent steps that the largest lies above the quantile, and the least below, with 97.5 %."""
    rare = min(percentile, 100 - percentile) / 100
    return math.ceil(math.log(0.025) / math.log1p(-rare))
