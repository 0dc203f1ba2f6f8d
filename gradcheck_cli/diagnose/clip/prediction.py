"""How often a max_norm will clip in the steps to come.

The norms of a training run drift, so the next steps are not drawn from those seen. The promise is a mixture over
equally likely slopes of the log norm from here on: each shifts the norms seen step by step over the horizon, which
gives a clip rate, and given that rate the number of clipped steps is beta-binomial. How the slopes spread was fitted
on some training runs and judged on others: see docs/recommend-clip.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gradcheck_cli.clip_advice import Interval
from gradcheck_cli.diagnose.clip.dependence import count_independent
from gradcheck_cli.diagnose.clip.drift import block_medians, slope_interval
from gradcheck_cli.diagnose.clip.quantiles import Z
from gradcheck_cli.diagnose.clip.warmup import log_norms
from gradcheck_cli.records import Floats

SHRINK = 1.0
"""A slope of z standard errors is taken to go on with the share z^2 / (z^2 + SHRINK) of it."""
SPREAD = 0.7
"""The spread of the slopes, in standard errors of the slope and in standard deviations of the block medians over n."""
SLOPES, MOMENTS = 25, 12
ROUNDING = 1e-9
"""Log norms that are nearer than this are equal."""
ALL_OR_NONE = 1e-3
"""a + b of a beta-binomial whose steps are nearly all clipped, or none."""
LEVEL = 0.95


class Prediction(NamedTuple):
    """Share of the next steps that are clipped: the median of what is expected, and its 95 % interval."""

    rate: float
    interval: Interval


def predict_rate(norms: Floats, max_norm: float, horizon: int) -> Prediction:
    """The share of the next `horizon` steps whose norm exceeds `max_norm`, from norms (n,), n >= 1, in time order."""
    exceeding = count_exceeding(norms, max_norm, horizon)
    below = 100 * float((norms <= max_norm).mean())
    n_eff = count_independent(norms, min(99.0, max(1.0, below)))
    cdf = mixture(exceeding, len(norms), n_eff, horizon)
    low, middle, high = (
        float(np.searchsorted(cdf, share)) / horizon for share in ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)
    )
    return Prediction(middle, Interval(low, min(1.0, high)))


def count_exceeding(norms: Floats, max_norm: float, horizon: int) -> Floats:
    """How many of the norms (n,) exceed `max_norm` under each slope, on average over the horizon: (SLOPES,).

    A zero norm never does.
    """
    logs = log_norms(norms)
    bar = math.log(max_norm) if max_norm > 0 else -math.inf
    distances = len(logs) / 2 + horizon * (np.arange(MOMENTS) + 0.5) / MOMENTS
    shifts = draw_slopes(logs)[:, None] * distances
    missing = np.where(norms > 0, bar - logs, math.inf)
    counts: Floats = np.searchsorted(np.sort(missing), shifts - ROUNDING).mean(axis=1)
    return counts


def draw_slopes(logs: Floats) -> Floats:
    """Equally likely slopes (SLOPES,) per step of log norms (n,) from here on.

    Their centre is the Theil-Sen slope, damped the more the less certain it is; around it they are Student's t with
    4 degrees of freedom. One norm has none.
    """
    if len(logs) < 2:
        return np.zeros(SLOPES)
    n, medians = len(logs), block_medians(logs)
    slope, low, high = (value * len(medians) / n for value in slope_interval(medians))
    error = (high - low) / (2 * Z)
    certainty = slope**2 / (slope**2 + SHRINK * error**2) if slope else 0.0
    spread = SPREAD * math.hypot(error, float(medians.std()) / n)
    return certainty * slope + spread * student_quantiles((np.arange(SLOPES) + 0.5) / SLOPES)


def student_quantiles(shares: Floats) -> Floats:
    """Quantiles of Student's t with 4 degrees of freedom. Shaw, Journal of Computational Finance 9 (2006), sec. 3."""
    root = np.sqrt(4 * shares * (1 - shares))
    quantiles: Floats = np.sign(shares - 0.5) * 2 * np.sqrt(np.maximum(np.cos(np.arccos(root) / 3) / root - 1, 0))
    return quantiles


def mixture(exceeding: Floats, n: int, n_eff: float, horizon: int) -> Floats:
    """Distribution function (horizon + 1,) of the number of clipped steps; of the n seen, `exceeding` (SLOPES,) exceed.

    For exchangeable norms and a max_norm that r - 1 of them exceed, the number of the next m is beta-binomial(m, r,
    n - r + 1). Guttman, "Statistical Tolerance Regions" (1970), chapter 2.
    """
    weight = concentration(n, n_eff, horizon)
    numbers, counts = np.unique(exceeding, return_counts=True)
    rates = (numbers + 1) / (numbers + 1 + np.maximum(1, n - numbers))
    parts = [beta_binomial(rate * weight, (1 - rate) * weight, horizon) for rate in rates]
    cdf: Floats = np.minimum(1.0, np.cumsum(counts @ np.array(parts)) / len(exceeding))
    return cdf


def concentration(n: int, n_eff: float, horizon: int) -> float:
    """a + b of the beta-binomial(horizon, a, b) as uncertain as n_eff of n steps, and of the horizon's, make it.

    n + 1 for independent steps; else matches the variance of beta-binomial(m_eff, ...) with a + b = n_eff + 1.
    """
    independent = max(1.0, horizon * n_eff / n)
    variance = (n_eff + 1 + independent) / (independent * (n_eff + 2))
    if variance * horizon <= 1:  # a horizon of one step
        return n_eff + 1
    return max(ALL_OR_NONE, horizon * (1 - variance) / (variance * horizon - 1))


def beta_binomial(a: float, b: float, m: int) -> Floats:
    """Probabilities (m + 1,) of beta-binomial(m, a, b), by the ratio of neighbours."""
    k = np.arange(m)
    steps = np.log((m - k) * (k + a)) - np.log((k + 1) * (m - k - 1 + b))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights: Floats = np.exp(logs - logs.max())
    weights /= weights.sum()
    return weights
