"""How far each rank's gradient norm is from that of the other ranks, and which ranks stand out for good reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gradcheck_cli.diagnose.statistics import CONSISTENCY
from gradcheck_cli.records import Bools, Floats, Ints

SIGMAS = 6.0
FACTOR = 3.0
STEPS_FOR_OFFSET = 10
STEPS_FOR_SINGLE = 20
FALSE_ALARMS = 1e-3
"""What each of the two tests of single steps may cost, in runs in which nothing is wrong."""

MOST_SINGLE = 10
TINY = 1e-15
LEAST_SIGMA = 0.05
MEDIAN_ERROR = 1.2533
"""sqrt(pi / 2): standard error of the median of n normal values, in sigma / sqrt(n)."""


class Tail(NamedTuple):
    """Student's t by its degrees of freedom; `scale` turns robust sigmas into its own unit."""

    degrees: float
    scale: float


TAILS = (Tail(2, 1.2106), Tail(3, 1.1340), Tail(4, 1.0982), Tail(6, 1.0640), Tail(12, 1.0312), Tail(math.inf, 1.0))
"""`scale` is 1.4826 times the upper quartile."""


class Outlier(NamedTuple):
    """A rank that stands out, on which of the steps; `always`: by its median over all steps."""

    rank: int
    steps: Ints
    always: bool


def find_outliers(log_norms: Floats) -> list[Outlier]:
    """The ranks that stand out in the logs of the norms (steps, ranks), all finite, at least two ranks."""
    away = find_offsets(log_norms)
    others = np.array([rank for rank in range(log_norms.shape[1]) if rank not in away])
    always = [Outlier(rank, np.flatnonzero(stands_out(log_norms, rank, away)), True) for rank in away]
    single = find_single(log_norms[:, others]) if len(others) > 1 and len(log_norms) >= STEPS_FOR_SINGLE else {}
    return always + [Outlier(int(others[rank]), steps, False) for rank, steps in single.items()]


def centre(values: Floats) -> Floats:
    """For each of the values (steps, ranks) the median of the other ranks' in the same step."""
    ranks = values.shape[1]
    ordered, place = np.sort(values, axis=1), values.argsort(axis=1, kind="stable").argsort(axis=1)
    low, high = (np.where(i < place, ordered[:, [i]], ordered[:, [i + 1]]) for i in ((ranks - 2) // 2, (ranks - 1) // 2))
    return (low + high) / 2


def spread(rest: Floats) -> float:
    """Robust sigma of deviations about 0, at least `LEAST_SIGMA`: equal data on all ranks have none."""
    return max(CONSISTENCY * float(np.median(np.abs(rest))), LEAST_SIGMA)


def most_outliers(ranks: int) -> int:
    """Fewer than half can be the ones that are wrong; of two, one."""
    return max(1, (ranks - 1) // 2)


def find_offsets(log_norms: Floats) -> list[int]:
    """The ranks whose norms are away from those of the others all the time, the farthest first."""
    steps, ranks = log_norms.shape
    away: list[int] = []
    while steps >= STEPS_FOR_OFFSET and len(away) < most_outliers(ranks):
        left = [rank for rank in range(ranks) if rank not in away]
        deviation = log_norms[:, left] - centre(log_norms[:, left])
        offset = np.median(deviation, axis=0)
        error = MEDIAN_ERROR * spread(deviation - offset) / math.sqrt(steps)
        far = int(np.argmax(offset if len(left) == 2 else np.abs(offset)))
        if abs(offset[far]) < max(math.log(FACTOR), SIGMAS * error):
            break
        away.append(left[far])
    return away


def stands_out(log_norms: Floats, rank: int, away: list[int]) -> Bools:
    """(steps,): where a rank's norm is `FACTOR` times that of the ranks that are not away, or a part of it."""
    others = [other for other in range(log_norms.shape[1]) if other not in away]
    return np.abs(log_norms[:, rank] - np.median(log_norms[:, others], axis=1)) >= math.log(FACTOR)


def find_single(log_norms: Floats) -> dict[int, Ints]:
    """The steps at which a rank stands out, by rank: in each step only the one that is farthest from its usual."""
    deviation = log_norms - centre(log_norms)
    rest = deviation - np.median(deviation, axis=0)
    ranks = log_norms.shape[1]
    rank = np.argmax(rest if ranks == 2 else np.abs(rest), axis=1)
    step = np.arange(len(rank))
    excess, signed = np.abs(rest[step, rank]), deviation[step, rank] * np.sign(rest[step, rank])
    sigma = spread(rest)
    far = (excess > max(SIGMAS * sigma, math.log(FACTOR))) & (signed >= math.log(FACTOR))
    chosen = far & (excess >= gap_limit(rest, excess, sigma))
    for one in concentrated(rank[far], ranks):
        chosen |= far & (rank == one)
    return {int(one): np.flatnonzero(chosen & (rank == one)) for one in np.unique(rank[chosen])}


def concentrated(ranks: Ints, size: int) -> Iterator[int]:
    """The ranks that are among those listed far more often than each of `size` ranks would be by chance."""
    for rank, times in zip(*np.unique(ranks, return_counts=True), strict=True):
        if size * binomial_tail(int(times), len(ranks), 1 / size) < FALSE_ALARMS:
            yield int(rank)


def binomial_tail(least: int, trials: int, probability: float) -> float:
    """The probability of at least so many successes."""
    return math.fsum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(least, trials + 1)
    )


def gap_limit(rest: Floats, excess: Floats, sigma: float) -> float:
    """The least of the largest `excess` (steps,) that stand so far from the others that no likely tail explains it.

    The others are the `rest` (steps, ranks) without the steps of the j largest. Their tail may be that of Student's t
    with any of the `TAILS` as degrees of freedom, equally likely before they are seen. Under each the j largest, given
    that they are the largest, are beyond x with probability (sf(x) / sf(largest of the others))^j. Infinite where the
    mean of these over what the others leave likely is not below FALSE_ALARMS / 2^j for any j.
    """
    order = np.argsort(-excess, kind="stable")
    largest = excess[order]
    density = np.stack([log_density(rest / sigma, tail).sum(axis=1) for tail in TAILS])[:, order]
    beyond = np.stack([log_survival(largest / sigma, tail) for tail in TAILS])
    # The deviations of a step add up to about nothing: one of them says nothing new.
    independent = 1 - 1 / rest.shape[1]
    limit = math.inf
    for j in range(1, min(MOST_SINGLE, len(order) // 2) + 1):
        likely = independent * density[:, j:].sum(axis=1)
        chance = np.logaddexp.reduce(likely + j * beyond[:, j - 1]) - np.logaddexp.reduce(likely + j * beyond[:, j])
        if chance < math.log(FALSE_ALARMS / 2**j):
            limit = float(largest[j - 1])
    return limit


def log_density(x: Floats, tail: Tail) -> Floats:
    """Log of the density of Student's t, up to a constant that all tails share, of x in robust sigmas."""
    t, degrees = x * tail.scale, tail.degrees
    if math.isinf(degrees):
        return -(t**2) / 2 - 0.5 * math.log(2 * math.pi)
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    return constant + math.log(tail.scale) - (degrees + 1) / 2 * np.log1p(t**2 / degrees)


def log_survival(x: Floats, tail: Tail) -> Floats:
    """Log of the probability of a value farther from 0 than x robust sigmas; Abramowitz and Stegun, 26.7.3 and 26.7.4.

    No less than log TINY, where the closed form has lost its digits.
    """
    t, degrees = x * tail.scale, tail.degrees
    if math.isinf(degrees):
        return np.log([max(math.erfc(value / math.sqrt(2)), TINY) for value in t])
    sine, square = t / np.sqrt(degrees + t**2), degrees / (degrees + t**2)
    odd = int(degrees) % 2
    term = sine * (np.sqrt(square) if odd else 1.0)
    total = term
    for k in range(1, int(degrees - odd) // 2):
        term = term * square * (2 * k - 1 + odd) / (2 * k + odd)
        total = total + term
    within = (np.arctan(t / math.sqrt(degrees)) + total) * 2 / math.pi if odd else total
    return np.log(np.maximum(1 - within, TINY))
