"""Where a series of norms begins to be like the rest of it."""

from __future__ import annotations

import math

import numpy as np

from gradcheck_cli.records import Floats

BATCH = 5


def log_norms(norms: Floats) -> Floats:
    """Natural logarithms of finite norms (n,); a zero counts as the smallest norm that is not, all zeros as 0."""
    positive = norms[norms > 0]
    smallest = float(positive.min()) if len(positive) else 1.0
    logs: Floats = np.log(np.maximum(norms, smallest))
    return logs


def cut_warmup(norms: Floats) -> int:
    """How many of the first of the finite norms (n,) to leave out, at most half of them: MSER-5 on log norms.

    Batch means y_1..y_m of BATCH values; d minimises sum_{i > d} (y_i - mean of them)^2 / (m - d)^2, d <= m / 2.
    White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69 (1997);
    batches of five: White, Cobb, Spratt, "A comparison of five steady-state truncation heuristics", WSC 2000.
    """
    batches = len(norms) // BATCH
    if batches < 2:
        return 0
    means = log_norms(norms)[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    means -= means.mean()  # keeps the differences of squares below exact enough
    left = np.arange(batches, 0, -1)
    sums, squares = means[::-1].cumsum()[::-1], (means**2)[::-1].cumsum()[::-1]
    errors = np.maximum(squares - sums**2 / left, 0.0) / left**2
    return BATCH * int(np.argmin(errors[: batches // 2 + 1]))


def cut_rate_warmup(rates: Floats) -> int:
    """How many first steps the learning rate (n,) of a schedule still rises from its start, 0 if it never does.

    A rise that goes on to the end of the run counts as a whole: the caller sees that nothing is left.
    """
    finite = rates[np.isfinite(rates)]
    if not len(finite) or math.isclose(float(finite.max()), float(rates[0]), rel_tol=1e-6):
        return 0
    rising = np.flatnonzero(np.diff(rates) <= 0)
    return int(rising[0]) if len(rising) else len(rates)
