"""What every part of the advice starts from: the kept norms, their percentiles, the value chosen, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradcheck_cli.clip_advice import ClipQuantile, ClipSettings, Drift, Interval, Tail
from gradcheck_cli.diagnose.clip.dependence import count_independent
from gradcheck_cli.diagnose.clip.drift import find_drift
from gradcheck_cli.diagnose.clip.kept import Kept, keep
from gradcheck_cli.diagnose.clip.quantiles import estimate_quantile, take_quantile
from gradcheck_cli.diagnose.clip.tail import THRESHOLD, fit_tail
from gradcheck_cli.diagnose.clip.verdict import Verdict, decide
from gradcheck_cli.diagnose.clip.wording import describe_shortage
from gradcheck_cli.records import Finding, Floats, Recording

USUAL = (90.0, 95.0, 99.0)


@dataclass(frozen=True)
class Choice:
    """The value that is recommended; `interval` is None where it was taken although there were too few steps."""

    percentile: float
    value: float
    interval: Interval | None
    n_eff: float


@dataclass(frozen=True)
class Basis:
    """`choice` is None where there are too few steps for any value."""

    kept: Kept
    quantiles: tuple[ClipQuantile, ...]
    choice: Choice | None
    drift: Drift | None
    tail: Tail | None
    verdict: Verdict


def lay(recording: Recording, settings: ClipSettings, ill: Sequence[Finding]) -> Basis:
    """Sift the norms, estimate their percentiles, and decide."""
    kept = keep(recording.series)
    quantiles = tuple(estimate_quantile(kept.norms, p) for p in sorted({*USUAL, settings.percentile}))
    choice = choose(quantiles, settings.percentile)
    tail = fit_tail(kept.norms, count_independent(kept.norms, 100 * THRESHOLD))
    verdict = decide(kept, tail, ill, "" if choice else describe_shortage(quantiles, kept))
    if verdict.name == "fix-first":
        choice = choice or make_do(kept.norms, settings.percentile)
    elif verdict.name == "insufficient-data":
        choice = None
    return Basis(kept, quantiles, choice, find_drift(kept.norms), tail, verdict)


def choose(quantiles: Sequence[ClipQuantile], percentile: float) -> Choice | None:
    """The percentile asked for, or the highest below it that can be had; never 0, which would stop the training."""
    for quantile in sorted(quantiles, key=lambda one: -one.percentile):
        if quantile.percentile <= percentile and quantile.value:
            return Choice(quantile.percentile, quantile.value, quantile.interval, quantile.n_eff)
    return None


def make_do(norms: Floats, percentile: float) -> Choice | None:
    """The percentile of too few norms (n,), without an interval; None without one that is not zero."""
    value = take_quantile(norms, percentile) if len(norms) else 0.0
    return Choice(percentile, value, None, count_independent(norms, percentile)) if value > 0 else None
