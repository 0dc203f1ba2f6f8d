"""Thresholds that follow the norms: ZClip, AutoClip, and OLMo-core's bound for steps to skip."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gradcheck_cli.records import Floats

ROUNDING = 1e-9
"""Relative to the mean, what a standard deviation is taken for at least: a constant series varies by rounding."""


class Threshold(Protocol):
    """A max_norm that changes from step to step; `next` is given each step's norm before clipping, if it is finite."""

    def next(self, norm: float) -> float:
        """The max_norm for the step that has this norm, inf where it is not to be clipped; the state goes on."""

    @property
    def limit(self) -> float:
        """The norm from which on a step is clipped, as far as it is known now; inf where none would be."""


class ZClip:
    """Clips norms whose z-score, against moving averages of mean and variance, exceeds `z`.

    mean and std are those of the first `warmup` norms (std of the population), then of
        mean <- alpha mean + (1 - alpha) g*,    std^2 <- alpha std^2 + (1 - alpha) (g* - mean)^2    (the new mean)
    where g* is the norm, or mean + z^2 / z_t std (of before) where its z-score z_t = (norm - mean) / std is above z.
    Kumar, Owen, Chowdhury, Güra, "ZClip: Adaptive Spike Mitigation for LLM Pre-Training", arXiv 2504.02507 (2025).
    `max_norm` is the further cap of the authors' implementation (bluorion-com/ZClip, max_grad_norm = 1.0): it holds in
    the warm-up too and leaves mean and std alone. The 1e-6 that it adds to std in z_t depends on the unit: not here.
    """

    def __init__(self, z: float = 2.5, alpha: float = 0.97, warmup: int = 25, max_norm: float | None = 1.0) -> None:
        self.z, self.alpha, self.warmup = z, alpha, warmup
        self.cap = math.inf if max_norm is None else max_norm
        self.first: list[float] = []
        self.mean = self.std = math.inf

    @property
    def limit(self) -> float:
        return min(self.cap, self.mean + self.z * self.std)

    def next(self, norm: float) -> float:
        if len(self.first) < self.warmup:
            self.first.append(norm)
            if len(self.first) == self.warmup:
                self.mean, self.std = moments(self.first)
            return self.cap
        limit = self.limit_of(norm)
        self.follow(min(norm, limit))
        return min(limit, self.cap)

    def limit_of(self, norm: float) -> float:
        """What a norm is clipped to where it is a spike, inf where it is none."""
        std = max(self.std, ROUNDING * self.mean)
        if norm <= self.mean + self.z * std:
            return math.inf
        score = (norm - self.mean) / std if std else math.inf
        return self.mean + self.z / score * self.z * std

    def follow(self, norm: float) -> None:
        self.mean = self.alpha * self.mean + (1 - self.alpha) * norm
        change = norm - self.mean
        self.std = math.hypot(math.sqrt(self.alpha) * self.std, math.sqrt(1 - self.alpha) * change)


class AutoClip:
    """Clips to the `percentile` of all norms so far, the present one and those that were clipped included.

    Seetharaman, Wichern, Pardo, Le Roux, "AutoClip: Adaptive Gradient Clipping for Source Separation Networks",
    MLSP 2020. Between two norms it interpolates linearly, as numpy.percentile in the authors' code.
    """

    def __init__(self, percentile: float = 10.0) -> None:
        self.percentile = percentile
        self.ordered: list[float] = []

    @property
    def limit(self) -> float:
        return interpolate(self.ordered, self.percentile) if self.ordered else math.inf

    def next(self, norm: float) -> float:
        insort(self.ordered, norm)
        return self.limit


def moments(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation of values (n,), n >= 1, without squares that overflow."""
    mean = math.fsum(value / len(values) for value in values)
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values))


def interpolate(ordered: Sequence[float], percentile: float) -> float:
    """A percentile of sorted values (n,), n >= 1, linear between the two nearest."""
    place = percentile / 100 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def sigma_limits(norms: Floats, sigmas: float = 6.0, window: int = 128) -> Floats:
    """Bounds (n + 1,) beyond which OLMo-core skips the step of each norm (n,), the last for a norm still to come.

    mean + sigmas std (n - 1 in the denominator) of the norms before, at most `window` of them, those of skipped steps
    included; inf while there are fewer than max(20, window / 2), the step's own counted. SkipStepOptimizer in
    allenai/OLMo-core, which bounds the loss in the same way.
    """
    limits = np.full(len(norms) + 1, np.inf)
    scale = float(norms.max(initial=0)) or 1.0
    scaled = norms / scale
    for step in range(max(20, window // 2) - 1, len(limits)):
        past = scaled[max(0, step - window) : step]
        mean = past.mean()
        difference = past - mean
        limits[step] = mean + sigmas * math.sqrt(difference @ difference / (len(past) - 1))
    with np.errstate(over="ignore"):  # beyond the largest float there is no limit
        limits *= scale
    return limits
