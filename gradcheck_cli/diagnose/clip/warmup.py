"""Where a series of norms begins to be like the rest of it."""

from __future__ import annotations

import numpy as np

from gradcheck_cli.diagnose.statistics import robust_sigma
from gradcheck_cli.records import Floats

BATCH = 5
SIGMAS, LEAST_LOG = 3.0, 0.1
ROUNDING = 1e-12
"""Sum of squares of log norms, as it is and as a share of the whole: less than this is no variation but rounding."""
EQUAL = 1e-9
"""Relative: of errors that differ by less the first counts as the least."""
LEAST_CHANGE = 1e-6
"""Relative: a learning rate that changes by less stays as it is."""


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
    Log norms count as no more than the median + SIGMAS robust sigmas (at least LEAST_LOG): else one spike of 30 times
    the others, in the first half, passes for the end of a warm-up, and is left out with all before it.
    """
    batches = len(norms) // BATCH
    if batches < 3:  # of two, one would be left, which never varies
        return 0
    logs = log_norms(norms)
    logs = np.minimum(logs, np.median(logs) + max(SIGMAS * robust_sigma(logs), LEAST_LOG))
    means = logs[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    means -= means.mean()  # keeps the differences of squares below exact enough
    left = np.arange(batches, 0, -1)
    sums, squares = means[::-1].cumsum()[::-1], (means**2)[::-1].cumsum()[::-1]
    rest = squares - sums**2 / left
    errors = (np.where(rest > ROUNDING * (1 + squares[0]), rest, 0.0) / left**2)[: batches // 2 + 1]
    return BATCH * int(np.argmax(errors <= errors.min() * (1 + EQUAL)))


def cut_rate_warmup(rates: Floats) -> int:
    """How many first steps the learning rate (n,) of a schedule rises to its first peak, 0 if it never does.

    It may rest on the way: a step that the GradScaler skips holds the schedule, and some rise in stairs. A rise that
    goes on to the end of the run counts as a whole: the caller sees that nothing is left.
    """
    if not len(rates) or not np.isfinite(rates).all():
        return 0
    falls = np.flatnonzero(rates[1:] < rates[:-1] * (1 - LEAST_CHANGE))
    rise = rates[: int(falls[0]) + 1] if len(falls) else rates
    peak = float(rise.max()) * (1 - LEAST_CHANGE)
    if rates[0] >= peak:
        return 0
    reached = int(np.argmax(rise >= peak))
    return len(rates) if reached == len(rates) - 1 else reached
