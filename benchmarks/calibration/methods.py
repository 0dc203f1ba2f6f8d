"""Three ways to promise a clip rate: the package's, and the two that it has to beat."""

from __future__ import annotations

import numpy as np

from gradcheck_cli.clip_advice import Interval
from gradcheck_cli.diagnose.clip.dependence import count_independent
from gradcheck_cli.diagnose.clip.drift import block_medians, slope_interval
from gradcheck_cli.diagnose.clip.prediction import LEVEL, mixture, predict_rate
from gradcheck_cli.diagnose.clip.warmup import log_norms
from gradcheck_cli.records import Floats


def promise_mixture(norms: Floats, max_norm: float, horizon: int) -> Interval:
    """What recommend-clip promises."""
    return predict_rate(norms, max_norm, horizon).interval


def promise_exchangeable(norms: Floats, max_norm: float, horizon: int) -> Interval:
    """Beta-binomial with effective numbers of steps: exact if the norms did not drift."""
    return between(norms, max_norm, horizon, (0.0, 0.0))


def promise_trend(norms: Floats, max_norm: float, horizon: int) -> Interval:
    """The same at either end of the Theil-Sen slope's interval, extrapolated over the horizon."""
    medians = block_medians(log_norms(norms))
    _, low, high = (value * len(medians) / len(norms) for value in slope_interval(medians))
    return between(norms, max_norm, horizon, (low, high))


def between(norms: Floats, max_norm: float, horizon: int, slopes: tuple[float, float]) -> Interval:
    """The low end of the promise under the first slope of the log norm, the high end under the second."""
    n_eff = count_independent(norms, 100 * float((norms <= max_norm).mean()))
    apart = np.sort(np.log(max_norm) - log_norms(norms))
    ends = []
    for slope, share in zip(slopes, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), strict=True):
        exceeding = np.searchsorted(apart, slope * (len(norms) / 2 + np.arange(horizon))).mean()
        cdf = mixture(np.array([exceeding]), len(norms), n_eff, horizon)
        ends.append(float(np.searchsorted(cdf, share)) / horizon)
    return Interval(ends[0], ends[1])


METHODS = {
    "recommend-clip": promise_mixture,
    "beta-binomial, n_eff and m_eff": promise_exchangeable,
    "Theil-Sen interval extrapolated": promise_trend,
}
