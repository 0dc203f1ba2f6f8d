"""How far the largest of some deviations may be from the others before no likely tail explains it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gradcheck_cli.records import Floats, Ints

FALSE_ALARM = 1e-3
"""How often a gap may be found where there is none."""

MOST_LARGEST = 10
TINY = 1e-15


class Tail(NamedTuple):
    """Student's t by its degrees of freedom; `scale`, 1.4826 times its upper quartile, turns robust sigmas into t."""

    degrees: float
    scale: float


TAILS = (
    Tail(2, 1.2105),
    Tail(3, 1.1340),
    Tail(4, 1.0982),
    Tail(5, 1.0774),
    Tail(6, 1.0639),
    Tail(8, 1.0473),
    Tail(12, 1.0311),
    Tail(math.inf, 1.0),
)


def find_gap(rest: Floats, largest: Floats, ranks: Ints) -> float:
    """The smallest of the `largest` (steps,) beyond a gap that no likely tail explains; infinite if there is none.

    `rest` (steps, ranks) are deviations in robust sigmas, `largest` the farthest in each step, without its sign, and
    `ranks` (steps,) whose it is: the j largest must all be one rank's. The others are those of the steps without them.
    Their tail may be that of Student's t with any of `TAILS` as degrees of freedom, equally likely before they are
    seen. Under each, all of the j largest are beyond x with probability (sf(x) / sf(the next one))^j; the mean of these
    over what the others leave likely must be below FALSE_ALARM / 2. That j values are one rank's has a chance of at
    most 2^(1 - j), so that over all j this adds up to FALSE_ALARM.
    """
    order, size = np.argsort(-largest, kind="stable"), rest.shape[1]
    density = np.stack([log_density(rest, tail).sum(axis=1) for tail in TAILS])[:, order]
    beyond = np.stack([log_survival(largest[order], tail) for tail in TAILS])
    independent = 1 - 1 / size  # the deviations of a step add up to about 0
    gap = math.inf
    for j in range(1, min(MOST_LARGEST, len(order) // 2) + 1):
        if ranks[order[j - 1]] != ranks[order[0]]:
            break
        likely = independent * density[:, j:].sum(axis=1)
        chance = log_sum(likely + j * beyond[:, j - 1]) - log_sum(likely + j * beyond[:, j])
        if chance < math.log(FALSE_ALARM / 2):
            gap = float(largest[order[j - 1]])
    return gap


def log_sum(logs: Floats) -> float:
    """Log of the sum of what the logs (n,) are of."""
    return float(np.logaddexp.reduce(logs))


def log_density(x: Floats, tail: Tail) -> Floats:
    """Log of the density of x, of any shape, in robust sigmas."""
    t, degrees = x * tail.scale, tail.degrees
    if math.isinf(degrees):
        normal: Floats = -(t**2) / 2 - math.log(2 * math.pi) / 2
        return normal
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    student: Floats = constant + math.log(tail.scale) - (degrees + 1) / 2 * np.log1p(t**2 / degrees)
    return student


def log_survival(x: Floats, tail: Tail) -> Floats:
    """Log of the probability to be farther from 0 than x (n,) robust sigmas, at least log TINY for want of digits.

    Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    t, degrees = x * tail.scale, tail.degrees
    if math.isinf(degrees):
        return np.log([max(math.erfc(value / math.sqrt(2)), TINY) for value in t.tolist()])
    odd = int(degrees) % 2
    square = degrees / (degrees + t**2)
    term = t / np.sqrt(degrees + t**2) * (np.sqrt(square) if odd else 1.0)
    within = term
    for k in range(1, int(degrees) // 2):
        term = term * square * (2 * k - 1 + odd) / (2 * k + odd)
        within = within + term
    if odd:
        within = (within + np.arctan(t / math.sqrt(degrees))) * 2 / math.pi
    survival: Floats = np.log(np.maximum(1 - within, TINY))
    return survival
