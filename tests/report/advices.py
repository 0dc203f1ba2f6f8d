"""Reports of made-up clip advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck_cli.clip_advice import (
    Candidate,
    ClipAdvice,
    ClipGroup,
    ClipLayer,
    ClipQuantile,
    Drift,
    Interval,
    JudgedNorm,
    Prior,
    Tail,
    VerifiedRun,
)
from gradcheck_cli.comparison import Comparison
from gradcheck_cli.records import Finding, Floats, NotEvaluated, Recording, Report, RunInfo, Severity
from tests.diagnose.recordings import make_recording
from tests.report.reports import HOSTILE_NAMES, VERSIONS, make_report

STEPS, WARMUP = 300, 29
CAVEATS = (
    "the replay is open-loop: clipping changes the path, and the norms that follow",
    "AdamW is nearly indifferent to a constant clip, which scales all its gradients alike; what counts is the spikes",
)


def make_norms(steps: int = STEPS, spikes: bool = True) -> Floats:
    """Norms that fall from 2.4 to about 0.5, with an uneven spread and some spikes."""
    index = np.arange(steps)
    norms = 0.45 + 0.3 * np.sin(2.4 * index) ** 2 * (1 + 0.4 * np.sin(index / 7)) + 2 * np.exp(-index / 8)
    norms[index % 53 == 47] *= 3 if spikes else 1
    return np.array([float(f"{norm:.6g}") for norm in norms])


def make_clip_report(
    advice: ClipAdvice,
    *,
    recording: Recording | None = None,
    findings: tuple[Finding, ...] = (),
    skipped: tuple[NotEvaluated, ...] = (),
    **members: Any,
) -> Report:
    """A report of `gradcheck recommend-clip`; the recording has the norms that `make_norms` makes."""
    made = recording or make_recording(
        steps=STEPS, grad_norm=make_norms(), loss=np.linspace(2.3, 0.4, STEPS), versions=VERSIONS
    )
    report = make_report(made, findings, skipped, command="recommend-clip", clip=advice, **members)
    return replace(report, layers=())


def make_advice(**members: Any) -> ClipAdvice:
    """Advice to clip, from a run that went well; `members` are what is different."""
    known: dict[str, Any] = {
        "verdict": "clip",
        "reasons": ("5 of 271 steps are spikes beyond 6 robust sigmas", "the tail is heavy"),
        "max_norm": 0.8312,
        "percentile": 95.0,
        "percentile_asked": 95.0,
        "interval": Interval(0.7402, 0.9511),
        "expected_rate": 0.054,
        "rate_interval": Interval(0.0202, 0.1134),
        "horizon": 500,
        "validated_rate": 0.0488,
        "validated_interval": Interval(0.011, 0.12),
        "steps": STEPS,
        "n": STEPS - WARMUP,
        "n_eff": 96.2,
        "warmup_excluded": WARMUP,
        "warmup_reason": "the norms settle then (MSER-5)",
        "dropped": {"nonfinite": 0, "skipped": 0},
        "steps_needed": None,
        "regime": "trained",
        "quantiles": (
            ClipQuantile(90.0, 0.7312, Interval(0.689, 0.7604), 88.1, 36),
            ClipQuantile(95.0, 0.8312, Interval(0.7402, 0.9511), 96.2, 72),
            ClipQuantile(99.0, None, None, 120.4, 368),
        ),
        "drift": Drift(False, 0.312, 1.021, Interval(0.934, 1.117)),
        "tail": Tail(0.213, Interval(0.041, 0.386), 0.7312, 27, 1.624, 1.581),
        "candidates": make_candidates(0.7312, 0.8312),
        "groups": (),
        "looseness": None,
        "layers": make_layers(),
        "dominant": None,
        "judged": None,
        "prior": Prior("transformer", 1.0, 1.0, False, True, "GPT-2 and LLaMA were trained with 1.0"),
        "caveats": CAVEATS,
        "notes": (),
        "norms": make_norms()[WARMUP:],
    }
    return ClipAdvice(**(known | members))


def make_candidates(p90: float, p95: float) -> tuple[Candidate, ...]:
    warm_up = "the first 100 steps are its warm-up, which clips the global norm to 1.0"
    return (
        Candidate("p90", p90, 0.1033, 0.8123),
        Candidate("p95", p95, 0.0517, 0.7512),
        Candidate("0.5", 0.5, 0.8044, 0.8332),
        Candidate("1.0", 1.0, 0.0185, 0.5521),
        Candidate("5.0", 5.0, 0.0, 1.0),
        Candidate("ZClip", None, 0.0332, 0.6612, 0.9123),
        Candidate("AutoClip p10", None, 0.8967, 0.7121, 0.4611),
        Candidate("mean + 6 sigma", None, 0.0185, 0.0, 1.9123, "skips the step; by its norm only"),
        Candidate("AdaGC", None, 0.9963, 0.5523, note=warm_up),
    )


def make_layers() -> tuple[ClipLayer, ...]:
    names = ["embedding", *(f"blocks.{i}.{part}" for i in range(4) for part in ("attention", "mlp")), "head"]
    return tuple(ClipLayer(name, 0.3 / 1.4**i, 0.25 / 1.3**i) for i, name in enumerate(reversed(names)))


def clip() -> Report:
    """A run to be clipped."""
    finding = Finding(
        "GC403",
        "clip-needed",
        Severity.INFO,
        "5 of 271 steps are spikes, the largest 3.2 times the median",
        "clip at max_norm 0.831",
        evidence={"spikes": 5},
    )
    return make_clip_report(make_advice(), findings=(finding,))


def not_needed() -> Report:
    """A quiet run, with a value of the user's that never acts."""
    advice = make_advice(
        verdict="not-needed",
        reasons=("no step is beyond 6 robust sigmas of the log norm", "the tail may be light"),
        max_norm=0.812,
        interval=Interval(0.794, 0.833),
        quantiles=(ClipQuantile(95.0, 0.812, Interval(0.794, 0.833), 96.2, 72),),
        candidates=make_candidates(0.751, 0.812),
        tail=Tail(-0.12, Interval(-0.31, 0.07), 0.69, 27, 0.781, 0.76),
        judged=JudgedNorm(5.0, 0.0, Interval(0.0, 0.0071), "never-acts"),
        dropped={"nonfinite": 0, "skipped": 2},
        n=269,
        norms=make_norms(spikes=False)[31:],
    )
    recording = make_recording(
        steps=STEPS,
        grad_norm=np.where(np.arange(STEPS) < 2, np.inf, make_norms(spikes=False)),
        skipped=[0, 1],
        precision="fp16",
        uses_scaler=True,
        versions=VERSIONS,
    )
    return make_clip_report(advice, recording=recording)


def fix_first() -> Report:
    """A run that diverges and whose promise was not kept."""
    finding = Finding(
        "GC206",
        "diverging-loss",
        Severity.ERROR,
        "the loss rises from 2.3 to 41 over the last 100 steps",
        "lower the learning rate",
        step=212,
    )
    norms = make_norms() * np.exp(np.arange(STEPS) / 90)
    norms[[200, 250, 251]] = np.nan, np.inf, np.inf
    norms = np.array([float(f"{norm:.6g}") for norm in norms])
    kept = norms[WARMUP:]
    advice = make_advice(
        verdict="fix-first",
        reasons=("GC206 diverging-loss: the loss rises from 2.3 to 41 over the last 100 steps",),
        max_norm=16.21,
        interval=Interval(13.4, 18.93),
        quantiles=(ClipQuantile(95.0, 16.21, Interval(13.4, 18.93), 96.2, 72),),
        candidates=make_candidates(13.7, 16.21),
        prior=Prior("RNN", 0.5, 5.0, False, False, "language models with LSTMs were trained with 0.25 to 5"),
        validated_rate=0.3122,
        regime="drifting",
        drift=Drift(True, 0.0001, 3.041, Interval(2.71, 3.49)),
        dropped={"nonfinite": 3},
        n=268,
        judged=JudgedNorm(0.1, 1.0, Interval(0.98, 1.0), "normalises"),
        norms=kept[np.isfinite(kept)],
        notes=("norms drift, so that the promise holds for the next steps only",),
    )
    recording = make_recording(steps=STEPS, grad_norm=norms, loss=np.linspace(2.3, 41, STEPS), versions=VERSIONS)
    return make_clip_report(advice, recording=recording, findings=(finding,), exit_code=1)


def non_finite() -> Report:
    """A run whose gradients turned NaN: clipping would make all of them NaN."""
    finding = Finding(
        "GC302",
        "nonfinite-gradient",
        Severity.ERROR,
        "blocks.3.mlp.weight has NaN in its gradient from step 212 on",
        "gradcheck nan-trace says where it comes from",
        layer="blocks.3.mlp.weight",
        step=212,
    )
    norms = make_norms()
    norms[212:] = np.nan
    kept = norms[WARMUP:212]
    advice = make_advice(
        verdict="fix-first",
        reasons=(f"GC302 nonfinite-gradient: {finding.message}",),
        dropped={"nonfinite": STEPS - 212},
        n=len(kept),
        norms=kept,
    )
    recording = make_recording(
        steps=STEPS, grad_norm=norms, loss=np.linspace(2.3, 1.1, STEPS), ended="nonfinite-loss", versions=VERSIONS
    )
    return make_clip_report(advice, recording=recording, findings=(finding,), exit_code=1)


def baseline() -> Report:
    """The value left the interval that the baseline promised, which is new; that there are spikes was known."""
    found = Finding("GC403", "clip-needed", Severity.INFO, "5 of 271 steps are spikes", "clip at max_norm 0.831")
    shifted = Finding(
        "GC805",
        "clip-shifted",
        Severity.WARNING,
        "max_norm is 0.831, outside 1.2 to 1.9, where the baseline has it",
        "if the change is wanted, write the baseline anew",
    )
    report = make_clip_report(make_advice(), findings=(shifted, found), exit_code=1)
    comparison = Comparison("gradcheck-baseline.json", new=(shifted.fingerprint,), known=(found.fingerprint,))
    return replace(report, comparison=comparison, fail_on="warning")


def insufficient() -> Report:
    """Thirty steps, interrupted."""
    advice = make_advice(
        verdict="insufficient-data",
        reasons=("20 steps are worth 9.31 independent ones, 36 are needed for p90",),
        max_norm=None,
        percentile=None,
        interval=None,
        expected_rate=None,
        rate_interval=None,
        validated_rate=None,
        validated_interval=None,
        steps=30,
        n=20,
        n_eff=9.31,
        warmup_excluded=10,
        steps_needed=120,
        regime="initialisation",
        quantiles=tuple(ClipQuantile(p, None, None, 9.31, n) for p, n in ((90.0, 36), (95.0, 72), (99.0, 368))),
        drift=None,
        tail=None,
        candidates=(),
        layers=(),
        prior=None,
        norms=make_norms()[10:30],
        notes=("no drift test with fewer than 40 steps",),
    )
    recording = make_recording(
        steps=30, grad_norm=make_norms()[:30], ended="interrupted", steps_requested=300, versions=VERSIONS
    )
    skipped = (NotEvaluated("GC403", "clip-needed", "20 steps kept, 36 are needed"),)
    return make_clip_report(advice, recording=recording, skipped=skipped)


def groups() -> Report:
    """Three parameter groups, a scaler, accumulation, one dominating layer; p95 was asked for and p90 was had."""
    quantiles = make_advice().quantiles
    advice = make_advice(
        percentile=90.0,
        max_norm=0.7312,
        interval=Interval(0.689, 0.7604),
        quantiles=(quantiles[0], replace(quantiles[1], value=None, interval=None, n_eff=60.1), quantiles[2]),
        steps_needed=420,
        regime="warm-up",
        groups=(
            ClipGroup(0, 24, 10_700_000, 0.691, Interval(0.64, 0.733), 0.83, 0.912),
            ClipGroup(1, 25, 12_288, 0.0931, None, 0.02, 0.011),
            ClipGroup(3, 1, 640, 0.2, Interval(0.18, 0.23), 0.15, float("nan")),
        ),
        looseness=3**0.5,
        layers=(ClipLayer("head", 0.912, float("nan")), ClipLayer("body", 0.088, float("nan"))),
        dominant="head",
        judged=JudgedNorm(0.75, 0.09, Interval(0.05, 0.15), "acts"),
    )
    recording = make_recording(
        steps=STEPS, grad_norm=make_norms(), precision="fp16", uses_scaler=True, accumulate=4, versions=VERSIONS
    )
    return make_clip_report(advice, recording=recording)


def norm_list() -> Report:
    """Norms of a file: no model, no device, no loss; some are zero."""
    norms = np.concatenate([np.zeros(4), make_norms(200)[29:]]) * 1e-7
    nothing = np.full(len(norms), np.nan)
    recording = make_recording(steps=len(norms), parameters={}, grad_norm=norms, loss=nothing)
    run = RunInfo(target="logs/norms.csv", device="", precision="", seed=None, steps_requested=len(norms))
    unknown = np.full(len(norms), -1, dtype=np.int64)
    series = replace(recording.series, lr=np.empty((len(norms), 0)), batch=unknown, epoch=unknown)
    advice = make_advice(
        reasons=("3 of 175 steps are spikes beyond 6 robust sigmas",),
        max_norm=8.312e-8,
        interval=Interval(7.402e-8, 9.511e-8),
        quantiles=(),
        tail=None,
        steps=len(norms),
        n=len(norms),
        warmup_excluded=0,
        warmup_reason="",
        dropped={},
        prior=None,
        layers=(),
        candidates=(
            Candidate("p95", 8.312e-8, 0.05, 0.81),
            Candidate("1.0", 1.0, 0.0, 1.0),
            *make_candidates(0.7, 0.8)[5:6],
        ),
        norms=norms,
        caveats=CAVEATS[:1],
        notes=("no layers and groups: a list of norms does not name them",),
    )
    return make_clip_report(advice, recording=replace(recording, run=run, series=series))


def verified() -> Report:
    """--verify: one run kept the promise, one did not, one diverged."""
    runs = (
        VerifiedRun("unclipped", 0.4112, 0.0, 300, "completed"),
        VerifiedRun("0.831", 0.4021, 0.0567, 300, "completed", True),
        VerifiedRun("1.0", 0.4133, 0.19, 300, "completed", False),
        VerifiedRun("ZClip", float("nan"), 0.5, 41, "nonfinite-loss"),
    )
    return make_clip_report(make_advice(verified=runs))


def hostile() -> Report:
    """Names that try to act on the terminal, everywhere."""
    evil = HOSTILE_NAMES[1]
    advice = make_advice(
        reasons=tuple(f"{name} is [b]bad[/b]" for name in HOSTILE_NAMES),
        layers=tuple(ClipLayer(name, 0.14, 0.1) for name in HOSTILE_NAMES),
        dominant=HOSTILE_NAMES[-1],
        candidates=tuple(Candidate(name, 0.7, 0.1, 0.5, note=f"{name} is limited") for name in HOSTILE_NAMES),
        prior=Prior(evil, 0.5, 5.0, True, None, f"{evil} is [red]clipped[/red]"),
        caveats=(evil,),
        notes=(evil,),
        warmup_reason=evil,
        dropped={evil: 2},
        verified=tuple(VerifiedRun(name, 0.4, 0.1, 3, "failed") for name in HOSTILE_NAMES),
    )
    report = make_clip_report(advice)
    return replace(report, run=replace(report.run, target="[red]evil.py:\x1b[31mmake"))


ADVICES: Mapping[str, Report] = {
    "clip-needed": clip(),
    "clip-not-needed": not_needed(),
    "clip-fix-first": fix_first(),
    "clip-insufficient": insufficient(),
    "clip-groups": groups(),
    "clip-norm-list": norm_list(),
    "clip-verified": verified(),
    "clip-hostile": hostile(),
    "clip-nan": non_finite(),
    "clip-baseline": baseline(),
}
