"""When a run of --until-stable may end."""

from __future__ import annotations

from gradcheck_cli.clip_advice import ClipQuantile
from gradcheck_cli.diagnose.clip.kept import keep
from gradcheck_cli.diagnose.clip.quantiles import estimate_quantile
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.records import Recording

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
        self.reached = False
        self.text = ""

    def __call__(self, steps: int, recorder: Recorder) -> bool:
        if steps >= FIRST_CHECK and not steps % CHECK_EVERY:
            quantile = estimate_quantile(keep(recorder.series()).norms, self._percentile)
            self.text = describe(quantile)
            self.reached = half_width(quantile) <= NARROW
        return self.reached


class JointStability:
    """The same of a script: whether it is so for all models that have made a step. `text` is of the newest look."""

    def __init__(self, percentile: float) -> None:
        self._percentile = percentile
        self._each: dict[Recorder, Stability] = {}
        self.text = ""

    def __call__(self, steps: int, recorder: Recorder) -> bool:
        one = self._each.setdefault(recorder, Stability(self._percentile))
        one(steps, recorder)
        self.text = one.text or self.text
        return all(one.reached for one in self._each.values())


def shortfall(recording: Recording, percentile: float) -> tuple[str, ...]:
    """What to note of a run that ended before it was stable; nothing where the interval is narrow all the same."""
    if recording.steps < FIRST_CHECK:
        return ("--until-stable was not reached: too few steps to tell",)
    quantile = estimate_quantile(keep(recording.series).norms, percentile)
    return () if half_width(quantile) <= NARROW else (f"--until-stable was not reached: {describe(quantile)}",)


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
