"""From a recording to the advice on clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradcheck_cli.clip_advice import Candidate, ClipAdvice, ClipGroup, ClipSettings, Drift, Interval, JudgedNorm
from gradcheck_cli.diagnose.clip.basis import Basis, lay
from gradcheck_cli.diagnose.clip.kept import Kept
from gradcheck_cli.diagnose.clip.prediction import Prediction, predict_rate
from gradcheck_cli.diagnose.clip.prior import recall_practice
from gradcheck_cli.diagnose.clip.quantiles import estimate_quantile, take_quantile
from gradcheck_cli.diagnose.clip.replays import replay_all, replay_per_tensor
from gradcheck_cli.diagnose.clip.shares import dominant_layer, looseness, share_by_group, share_by_layer
from gradcheck_cli.diagnose.clip.verdict import FEWEST_FOR_TAIL
from gradcheck_cli.diagnose.clip.wording import name_caveats, name_limits
from gradcheck_cli.records import Finding, Floats, Recording

FITTED_SHARE = 0.7
FEWEST_TO_VALIDATE = 20
SCRATCH_STEPS = 1000
"""So many first steps of a run say little of the rest of it."""
NEVER, MOSTLY = 0.001, 0.5


def advise(recording: Recording, settings: ClipSettings, ill: Sequence[Finding] = ()) -> ClipAdvice:
    """Whether to clip, and where. `ill` are findings of other rules that must be mended first."""
    basis = lay(recording, settings, ill)
    kept, choice = basis.kept, basis.choice
    max_norm = choice.value if choice else None
    promise = predict_rate(kept.norms, choice.value, settings.horizon) if choice else None
    validated = validate(kept.norms, choice.percentile) if choice else None
    layers = share_by_layer(recording, kept.steps, math.inf if max_norm is None else max_norm)
    groups = advise_groups(recording, basis)
    return ClipAdvice(
        verdict=basis.verdict.name,
        reasons=basis.verdict.reasons,
        max_norm=max_norm,
        percentile=choice.percentile if choice else None,
        percentile_asked=settings.percentile,
        interval=choice.interval if choice else None,
        expected_rate=promise.rate if promise else None,
        rate_interval=promise.interval if promise else None,
        horizon=settings.horizon,
        validated_rate=validated[0] if validated else None,
        validated_interval=validated[1].interval if validated else None,
        steps=recording.steps,
        n=len(kept.norms),
        n_eff=choice.n_eff if choice else basis.quantiles[0].n_eff,
        warmup_excluded=kept.excluded,
        warmup_reason=kept.reason,
        dropped=kept.dropped,
        steps_needed=estimate_steps(recording, basis, settings.percentile),
        regime=name_regime(recording, kept, basis.drift),
        quantiles=basis.quantiles,
        drift=basis.drift,
        tail=basis.tail,
        candidates=replay(recording, basis, settings.max_norm),
        groups=groups,
        looseness=looseness(groups),
        layers=layers,
        dominant=dominant_layer(layers),
        judged=judge(kept.norms, settings),
        prior=recall_practice(recording.modules, max_norm, kept.norms),
        caveats=name_caveats(recording.run.optimizer),
        notes=name_limits(recording, basis),
        norms=kept.norms,
    )


def validate(norms: Floats, percentile: float) -> tuple[float, Prediction] | None:
    """Fit on the first FITTED_SHARE of norms (n,), count on the rest: the rate there, and what was promised for it."""
    fitted = int(FITTED_SHARE * len(norms))
    past, rest = norms[:fitted], norms[fitted:]
    if fitted < FEWEST_TO_VALIDATE:
        return None
    value = take_quantile(past, percentile)
    return float((rest > value).mean()), predict_rate(past, value, len(rest))


def estimate_steps(recording: Recording, basis: Basis, percentile: float) -> int | None:
    """How many steps to ask for, to the next 50, where there are too few; None where there are not.

    A quarter more than what the kept steps are worth says that the percentile needs, and enough to judge the tail where
    that decides the verdict; at least twice as many as there were.
    """
    n, asked = len(basis.kept.norms), next(one for one in basis.quantiles if one.percentile == percentile)
    undecided = basis.verdict.name == "insufficient-data" and basis.kept.norms.any() and n < FEWEST_FOR_TAIL
    if asked.n_eff >= asked.needed and not undecided:
        return None
    worth = asked.n_eff / n if n else 1.0
    wanted = recording.steps - n + max(1.25 * asked.needed / worth, FEWEST_FOR_TAIL)
    return 50 * math.ceil(max(2 * recording.steps, wanted) / 50)


def name_regime(recording: Recording, kept: Kept, drift: Drift | None) -> str:
    """Which part of the training the norms are from; one of clip_advice.REGIMES."""
    if kept.rate_rises:
        return "warm-up"
    if recording.steps < SCRATCH_STEPS and not recording.run.checkpoint:
        return "initialisation" if recording.parameters else "unknown"  # a list of norms may begin anywhere
    return "drifting" if drift and drift.found else "trained"


def replay(recording: Recording, basis: Basis, judged: float | None) -> tuple[Candidate, ...]:
    """All ways to clip on the kept norms; those that work on single tensors where there are norms of these."""
    known = {quantile.percentile: quantile.value for quantile in basis.quantiles if quantile.value is not None}
    statistics = recording.statistics
    rows = np.isin(statistics.steps, basis.kept.steps)
    per_tensor = (
        replay_per_tensor(statistics.norm[rows], statistics.parameter_norm[rows], statistics.has_gradient[rows])
        if recording.parameters and rows.any()
        else ()
    )
    return (*replay_all(basis.kept.norms, known, judged), *per_tensor)


def advise_groups(recording: Recording, basis: Basis) -> tuple[ClipGroup, ...]:
    """A value for each optimizer group at the percentile that was chosen."""
    if not basis.choice:
        return ()
    percentile = basis.choice.percentile

    def quantile(norms: Floats) -> tuple[float, Interval | None]:
        return take_quantile(norms, percentile), estimate_quantile(norms, percentile).interval

    return share_by_group(recording, basis.kept.steps, quantile, basis.choice.value)


def judge(norms: Floats, settings: ClipSettings) -> JudgedNorm | None:
    """What the user's own max_norm does to norms (n,), and will do."""
    if settings.max_norm is None or len(norms) < 2:
        return None
    rate = float((norms > settings.max_norm).mean())
    effect = "never-acts" if rate < NEVER else "normalises" if rate > MOSTLY else "acts"
    return JudgedNorm(
        settings.max_norm, rate, predict_rate(norms, settings.max_norm, settings.horizon).interval, effect
    )
