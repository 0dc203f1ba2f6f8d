"""When a run of --until-stable may end."""

from __future__ import annotations

from gradcheck_cli.clip_advice import ClipQuantile
from gradcheck_cli.diagnose.clip.kept import keep
from gradcheck_cli.diagnose.clip.quantiles import estimate_quantile
from gradcheck_cli.observe.recorder import Recorder

NARROW = 0.15
FIRST_CHECK = 50
CHECK_EVERY = 25


class Stability:
    """Whether the 95 % interval of a percentile of the norms is within 15 % of its value; `text` says how wide it is.

    It looks at FIRST_CHECK steps, and then every CHECK_EVERY steps, whatever has come over from the device by itself:
    the same run ends at the same step on every machine.
    """

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self.text = ""

    def __call__(self, steps: int, recorder: Recorder) -> bool:
        if steps < FIRST_CHECK or steps % CHECK_EVERY:
            return False
        quantile = estimate_quantile(keep(recorder.series).norms, self._percentile)
        self.text = describe(quantile)
        return half_width(quantile) <= NARROW


def half_width(quantile: ClipQuantile) -> float:
    """Half the interval's width over the value; infinite where there is no interval yet."""
    if quantile.interval is None or not quantile.value:
        return float("inf")
    return (quantile.interval.high - quantile.interval.low) / 2 / quantile.value


def describe(quantile: ClipQuantile) -> str:
    """`p95 0.83 ±22 % (until ±15 %)`."""
    name = f"p{quantile.percentile:g}"
    if quantile.interval is None:
        return f"{name} needs {quantile.needed} independent steps, has {quantile.n_eff:.0f}"
    return f"{name} {quantile.value:.3g} ±{100 * half_width(quantile):.0f} % (until ±{100 * NARROW:.0f} %)"
