"""What recommend-clip answers: plain values. All norms are in the units of the gradient's L2 norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gradcheck_cli.records import Floats

VERDICTS = ("clip", "not-needed", "fix-first", "insufficient-data")
REGIMES = ("initialisation", "warm-up", "drifting", "trained", "unknown")


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


@dataclass(frozen=True)
class ClipSettings:
    """What the user asked for: a `percentile` in (0, 100), a `horizon` in steps, a `max_norm` of theirs to judge."""

    percentile: float = 95.0
    horizon: int = 500
    max_norm: float | None = None


@dataclass(frozen=True)
class ClipQuantile:
    """A percentile of the kept norms.

    `n_eff` is how many independent steps they are worth for it, `needed` how many it takes; `value` and `interval`
    (95 %) are None with fewer.
    """

    percentile: float
    value: float | None
    interval: Interval | None
    n_eff: float
    needed: int


@dataclass(frozen=True)
class Drift:
    """Whether the norms went up or down: Mann-Kendall's `p` and Theil-Sen's slope of the log norm on block medians.

    `change` is the factor over 100 steps, with its 95 % interval. `found` is False where no drift was found, which
    does not mean that there is none.
    """

    found: bool
    p: float
    change: float
    interval: Interval


@dataclass(frozen=True)
class Tail:
    """Peaks over the `threshold` (p90): generalised Pareto `shape` with its 95 % interval, from `exceedances` norms.

    `p99` is the estimate from this tail, `p99_empirical` the order statistic.
    """

    shape: float
    interval: Interval
    threshold: float
    exceedances: int
    p99: float
    p99_empirical: float


@dataclass(frozen=True)
class Candidate:
    """A way to clip, replayed on the observed norms.

    `clip_rate` is the share of kept steps that it acts on. `mean_shrink` is the mean factor by which it shortens
    the gradients that it acts on, 1 where it acts on none; 0 for one that skips the step. `max_norm` is the
    threshold, None where it changes from step to step, and `last_max_norm` then its newest value. `note` says what
    limits the replay.
    """

    name: str
    max_norm: float | None
    clip_rate: float
    mean_shrink: float
    last_max_norm: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ClipGroup:
    """One optimizer parameter group: its own max_norm at the same percentile, and its share of the squared norm."""

    index: int
    parameters: int
    numel: int
    max_norm: float
    interval: Interval | None
    share: float
    share_clipped: float


@dataclass(frozen=True)
class ClipLayer:
    """A layer's share of the squared global norm: median over the kept steps, and over the steps that would be clipped.

    `share_clipped` is NaN where none would be.
    """

    name: str
    share: float
    share_clipped: float


@dataclass(frozen=True)
class JudgedNorm:
    """The user's own max_norm. `effect` is never-acts (< 0.1 % of steps), normalises (> 50 %) or acts."""

    max_norm: float
    clip_rate: float
    rate_interval: Interval
    effect: str


@dataclass(frozen=True)
class Prior:
    """What the field uses for this kind of model; `agrees` with the measured value or not, None without one.

    `sentence` says what the usual value would do to these steps where it does not agree, "" elsewhere.

    `low` and `high` bound the usual values, `clips_rarely` says that most train such models without clipping.
    """

    kind: str
    low: float
    high: float
    clips_rarely: bool
    agrees: bool | None
    sentence: str


@dataclass(frozen=True)
class VerifiedRun:
    """One training run of --verify: `name` is unclipped or the candidate's.

    `loss` is the mean over the last tenth of its steps (at least 10), NaN where the run failed or diverged.
    `clip_rate` is the share of its steps that were clipped, after as many first ones as the warm-up that was left out
    of the advice; `inside` whether that lies in the promised interval
    (None where none was promised). `ended` is RunInfo.ended.
    """

    name: str
    loss: float
    clip_rate: float
    steps: int
    ended: str
    inside: bool | None = None


@dataclass(frozen=True)
class ClipAdvice:
    """The answer. Everything that could not be had is None or empty, and `notes` say why.

    `reasons` say in words what decided the verdict. `max_norm` is the quantile at `percentile`, which is lower than
    `percentile_asked` where there were too few effective steps for that, and `interval` its 95 % interval.
    `expected_rate` and `rate_interval` (95 %) predict the share of the next `horizon` steps whose norm exceeds it.
    `validated_rate` is the share of the last 30 % of the kept steps that exceed the value fitted on the first 70 %,
    `validated_interval` what was promised for them then.
    `steps` were run, `n` kept, worth `n_eff` independent ones; the first `warmup_excluded` were left out, because of
    `warmup_reason`; `dropped` counts others by reason (nonfinite, skipped). `steps_needed` is how many to ask for,
    where there were too few. `regime` is one of REGIMES. `looseness` is sqrt(K) for K groups that are clipped apart
    at the global max_norm: how far the joint norm may still be above it; None for one group.
    `dominant` names the layer that makes most of the norm, None where none does.
    `norms` (n,) float64 are the kept ones in order of time, for histogram and sparkline.
    """

    verdict: str
    reasons: tuple[str, ...]
    max_norm: float | None
    percentile: float | None
    percentile_asked: float
    interval: Interval | None
    expected_rate: float | None
    rate_interval: Interval | None
    horizon: int
    validated_rate: float | None
    validated_interval: Interval | None
    steps: int
    n: int
    n_eff: float
    warmup_excluded: int
    warmup_reason: str
    dropped: Mapping[str, int]
    steps_needed: int | None
    regime: str
    quantiles: tuple[ClipQuantile, ...]
    drift: Drift | None
    tail: Tail | None
    candidates: tuple[Candidate, ...]
    groups: tuple[ClipGroup, ...]
    looseness: float | None
    layers: tuple[ClipLayer, ...]
    dominant: str | None
    judged: JudgedNorm | None
    prior: Prior | None
    caveats: tuple[str, ...]
    notes: tuple[str, ...]
    norms: Floats
    verified: tuple[VerifiedRun, ...] = ()
