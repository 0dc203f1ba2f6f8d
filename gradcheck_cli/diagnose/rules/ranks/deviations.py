"""Which ranks' gradient norms are away from those of the other ranks in the same steps."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from gradcheck_cli.diagnose.statistics import CONSISTENCY
from gradcheck_cli.records import Bools, Floats, Ints

SIGMAS = 6.0
FACTOR = 3.0
GROSS_SIGMAS = 10.0
GROSS_FACTOR = 10.0
FALSE_ALARM = 1e-3
"""How often by chance so many far steps may be one rank's."""
STEPS_FOR_ALWAYS = 10
STEPS_FOR_SINGLE = 20
LEAST_CONCENTRATED = 5
LEAST_SIGMA = 1e-3
MEDIAN_ERROR = 1.2533
"""sqrt(pi / 2): standard error of the median of n normal values in units of sigma / sqrt(n)."""


class Deviation(NamedTuple):
    """A rank that is away from the others at `steps`, `always`: by its median over all steps."""

    rank: int
    steps: Ints
    always: bool


def find_deviations(log_norms: Floats) -> list[Deviation]:
    """The ranks that stand out in the logs of norms (steps, ranks), all finite, in the order of the ranks."""
    steps, ranks = log_norms.shape
    if ranks < 2 or steps < STEPS_FOR_ALWAYS:
        return []
    always = find_always(log_norms)
    others = [rank for rank in range(ranks) if rank not in always]
    found = [Deviation(rank, np.flatnonzero(is_far(log_norms, rank, others)), True) for rank in always]
    if steps >= STEPS_FOR_SINGLE and len(others) > 1:
        single = find_single(log_norms[:, others])
        found += [Deviation(others[index], at, False) for index, at in single.items()]
    return sorted((one for one in found if len(one.steps)), key=lambda one: one.rank)


def find_always(log_norms: Floats) -> list[int]:
    """The ranks whose norms are another than the others' by their median over the steps, the farthest first.

    Fewer than half of the ranks; of two the larger.
    """
    steps, ranks = log_norms.shape
    found: list[int] = []
    while len(found) < most_wrong(ranks):
        left = [rank for rank in range(ranks) if rank not in found]
        deviation = log_norms[:, left] - median_of_others(log_norms[:, left])
        offset = np.median(deviation, axis=0)
        error = MEDIAN_ERROR * measure_sigma(deviation - offset) / math.sqrt(steps)
        farthest = int(np.argmax(offset if ranks == 2 else np.abs(offset)))
        if abs(offset[farthest]) < max(math.log(FACTOR), SIGMAS * error):
            break
        found.append(left[farthest])
    return found


def most_wrong(ranks: int) -> int:
    """How many ranks can be wrong while the others tell what is right; one of two, though there they do not."""
    return max(1, (ranks - 1) // 2)


def is_far(log_norms: Floats, rank: int, others: Collection[int]) -> Bools:
    """(steps,): where the norm of a rank is `FACTOR` times the others' median, or the other way round."""
    middle = np.median(log_norms[:, list(others)], axis=1)
    far: Bools = np.abs(log_norms[:, rank] - middle) >= math.log(FACTOR)
    return far


def find_single(log_norms: Floats) -> dict[int, Ints]:
    """The steps at which a rank is away from the others and from its own usual distance to them, by rank.

    In each step only the farthest rank, of two the larger: where it is one of three, it moves the others' medians.
    """
    deviation = log_norms - median_of_others(log_norms)
    rest = deviation - np.median(deviation, axis=0)
    ranks, sigma = log_norms.shape[1], measure_sigma(rest)
    rank = np.argmax(rest if ranks == 2 else np.abs(rest), axis=1)
    own, whole = (values[np.arange(len(rank)), rank] for values in (rest, deviation))
    size = np.abs(own) / sigma
    far = (size >= SIGMAS) & (np.abs(own) >= math.log(FACTOR)) & (whole * np.sign(own) >= math.log(FACTOR))
    if not far.any():
        return {}
    gross = far & (size >= GROSS_SIGMAS) & (np.abs(own) >= math.log(GROSS_FACTOR))
    found = gross | (far & np.isin(rank, find_frequent(rank[far], ranks)))
    return {int(one): np.flatnonzero(found & (rank == one)) for one in np.unique(rank[found])}


def median_of_others(values: Floats) -> Floats:
    """For each of the values (steps, ranks) the median of the other ranks' in the same step."""
    ranks = values.shape[1]
    ordered, place = np.sort(values, axis=1), values.argsort(axis=1, kind="stable").argsort(axis=1)
    middles = ((ranks - 2) // 2, (ranks - 1) // 2)
    low, high = (np.where(i < place, ordered[:, [i]], ordered[:, [i + 1]]) for i in middles)
    middle: Floats = (low + high) / 2
    return middle


def measure_sigma(rest: Floats) -> float:
    """Robust sigma about 0 over all steps and ranks; ranks with equal data have next to none."""
    return max(CONSISTENCY * float(np.median(np.abs(rest))), LEAST_SIGMA)


def find_frequent(ranks: Ints, size: int) -> list[int]:
    """Those that come far more often among `ranks` than by chance, where each of `size` ranks is as likely."""
    found, times = np.unique(ranks, return_counts=True)
    return [
        int(rank)
        for rank, number in zip(found, times.tolist(), strict=True)
        if number >= LEAST_CONCENTRATED and size * binomial_tail(number, len(ranks), 1 / size) < FALSE_ALARM
    ]


def binomial_tail(least: int, trials: int, probability: float) -> float:
    """The probability of at least so many successes, 0 < `probability` < 1."""
    hit, miss = math.log(probability), math.log1p(-probability)
    return math.fsum(
        math.exp(log_choices(trials, number) + number * hit + (trials - number) * miss)
        for number in range(least, trials + 1)
    )


def log_choices(trials: int, number: int) -> float:
    """Log of the binomial coefficient."""
    return math.lgamma(trials + 1) - math.lgamma(number + 1) - math.lgamma(trials - number + 1)
