"""Series of norms with known properties, and recordings of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradcheck_cli.records import Floats, Recording
from tests.diagnose.recordings import make_recording


def autoregress(count: int, length: int, rho: float, seed: int = 0) -> Floats:
    """Standard normal AR(1) series (count, length) whose neighbours correlate with rho."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, length))
    values[:, 1:] *= math.sqrt(1 - rho**2)
    for step in range(1, length):
        values[:, step] += rho * values[:, step - 1]
    return values


def lognormal(length: int, seed: int = 0, sigma: float = 0.3, rho: float = 0.0) -> Floats:
    """Norms (length,) around 1 without a trend."""
    norms: Floats = np.exp(sigma * autoregress(1, length, rho, seed)[0])
    return norms


def settled(length: int, sigma: float = 0.05, seed: int = 1) -> Floats:
    """Norms (length,) of a healthy run: with no spike, light tails (uniform logs) and no trend."""
    norms: Floats = np.exp(sigma * np.random.default_rng(seed).uniform(-1, 1, length))
    return norms


def steady(length: int) -> Floats:
    """As `settled`, but any five have the same mean: MSER-5 cuts nothing off."""
    logs = np.log(settled(5 * (length // 5 + 1))).reshape(-1, 5)
    norms: Floats = np.exp(logs - logs.mean(axis=1, keepdims=True)).ravel()[:length]
    return norms


def record(norms: npt.ArrayLike, **members: Any) -> Recording:
    """A recording with these global norms; NaN and Inf among them are meant."""
    values = np.asarray(norms, dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of making the recording
        return make_recording(steps=len(values), grad_norm=values, **members)


def interleave(spikes: Sequence[int], norms: Floats, times: float) -> Floats:
    """The norms, at these steps so many times as large."""
    changed = norms.copy()
    changed[list(spikes)] *= times
    return changed
