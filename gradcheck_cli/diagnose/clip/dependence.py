"""How many independent steps an autocorrelated series is worth for one of its percentiles."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from gradcheck_cli.records import Floats

NORMAL = NormalDist()
LARGEST_BIAS = 0.3


def count_independent(norms: Floats, percentile: float) -> float:
    """The effective number of steps n / (1 + 2 sum rho_k) of norms (n,) for 1[norm > percentile], at most n.

    The smaller of two estimates: from the autocorrelations of that indicator, which sees that large norms come in
    clusters but is noisy; and from those of the normal scores, which is steady (at an AR(1) series of rho .9, n 500,
    intervals cover .94 instead of .89 of the time at p90, .97 instead of .86 at p95) but takes the dependence
    for that of a normal series.
    """
    n, p = len(norms), percentile / 100
    if n < 2:
        return float(n)
    events = norms > np.quantile(norms, p, method="inverted_cdf")
    return n / max(1.0, sum_of(autocorrelations(events.astype(np.float64))), sum_of(score_correlations(norms, p)))


def sum_of(correlations: Floats) -> float:
    """1 + 2 sum rho_k of correlations (n,) from lag 0, up to the first pair of neighbours that is not positive.

    Geyer's initial positive sequence, "Practical Markov chain Monte Carlo", Statistical Science 7 (1992), sec. 3.3.
    """
    return -1 + 2 * float(correlations[: positive_lags(correlations)].sum())


def positive_lags(correlations: Floats) -> int:
    """How many lags there are before the first pair of neighbours whose sum is not positive."""
    pairs = correlations[: len(correlations) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    return 2 * int(ends[0] if len(ends) else len(pairs))


def autocorrelations(values: Floats) -> Floats:
    """Autocorrelations (n,) of values (n,) at the lags 0 to n - 1, by FFT; 1 and then zeros where they never vary."""
    n = len(values)
    power = np.abs(np.fft.rfft(values - values.mean(), 2 * n)) ** 2
    covariances = np.fft.irfft(power, 2 * n)[:n]
    never_varies = covariances[0] <= 1e-12 * n
    correlations: Floats = np.eye(1, n)[0] if never_varies else covariances / covariances[0]
    return correlations


def score_correlations(norms: Floats, p: float) -> Floats:
    """Autocorrelations (lags,) of 1[norm > quantile p] that those of the normal scores of norms (n,) imply."""
    correlations = debias(autocorrelations(normal_scores(norms)))
    return exceedance_correlation(np.clip(correlations[: positive_lags(correlations)], 0, 1), p)


def normal_scores(norms: Floats) -> Floats:
    """The normal quantiles (n,) of the mid-ranks of norms (n,)."""
    _, places, counts = np.unique(norms, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(norms)
    scores: Floats = np.array([NORMAL.inv_cdf(share) for share in middle.tolist()])[places]
    return scores


def debias(correlations: Floats) -> Floats:
    """Autocorrelations (n,) without what the subtracted mean took: about tau / n at every lag, tau their sum.

    Also divided by the share of pairs at each lag. Marriott and Pope, "Bias in the estimation of
    autocorrelations", Biometrika 41 (1954).
    """
    n = len(correlations)
    if not correlations[1:].any():
        return correlations
    raw = correlations * n / np.arange(n, 0, -1)
    better = raw
    for _ in range(3):
        bias = min(max(1.0, sum_of(better)) / n, LARGEST_BIAS)
        better = raw + (1 - raw) * bias
    return better


def exceedance_correlation(correlations: Floats, p: float) -> Floats:
    """Correlation (n,) of 1[x > q] and 1[y > q], q = quantile p, for x, y normal of `correlations` (n,) in [0, 1].

    P(x <= q, y <= q) - p^2 is the integral of exp(-q^2 / (1 + r)) / (2 pi sqrt(1 - r^2)) from 0 to the correlation:
    Plackett, "A reduction formula for normal multivariate integrals", Biometrika 41 (1954).
    """
    q = NORMAL.inv_cdf(p)
    angles = np.linspace(0, math.pi / 2, 1001)  # r = sin(angle) takes the square root away
    density = np.exp(-(q**2) / (1 + np.sin(angles))) / (2 * math.pi)
    integral = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2) * angles[1]])
    implied: Floats = np.interp(np.arcsin(correlations), angles, integral) / (p * (1 - p))
    return implied
