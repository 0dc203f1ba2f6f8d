"""Train again from the same start with what was recommended, and with what else the user wants to compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gradcheck_cli.clip_advice import ClipAdvice, Interval, VerifiedRun
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.adaptive import AutoClip, ZClip
from gradcheck_cli.drive.loop import MaxNorm
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.pipeline.preparation import Progress, Start, Watcher, begin
from gradcheck_cli.pipeline.profiling import InterruptError, Outcome, watch_training
from gradcheck_cli.records import Floats, Recording

ADAPTIVE: Mapping[str, Callable[[], MaxNorm]] = {
    "zclip": lambda: ZClip(max_norm=None).next,
    "autoclip": lambda: AutoClip().next,
}
WITHOUT_LOSS = ("failed", "nonfinite-loss", "interrupted")
LEAST_FOR_LOSS = 10
ROUNDING = 1e-6
SAME = 1e-3


@dataclass(frozen=True)
class Trial:
    """One way to clip, with the interval of its clip rate where one was promised."""

    name: str
    max_norm: MaxNorm
    promised: Interval | None = None


def verify(
    start: Start, settings: Settings, unclipped: Recording, advice: ClipAdvice, watch: Watcher
) -> tuple[tuple[VerifiedRun, ...], tuple[str, ...]]:
    """Train with each trial for as many steps as the unclipped run had, beside which they stand; also notes.

    An error of a trial ends that trial only and is noted. Ctrl-C ends all of it; what was found is kept.
    """
    trials = list(trials_of(advice, settings))
    if unclipped.run.ended in ("interrupted", "failed") or not trials:
        why = "there is no value to train with" if not trials else "the unclipped run did not come to its end"
        return (), (f"--verify was left out: {why}",)
    runs, notes = [summarise(Trial("unclipped", math.inf), unclipped, advice.warmup_excluded)], []
    for trial in trials:
        try:
            run, note = attempt(start, settings, trial, unclipped, advice.warmup_excluded, watch)
        except (KeyboardInterrupt, InterruptError):
            notes.append(f"--verify was interrupted before the first step of {trial.name}")
            break
        runs.append(run)
        notes += [note] if note else []
        if run.ended == "interrupted":
            break
    return tuple(runs), tuple(notes)


def trials_of(advice: ClipAdvice, settings: Settings) -> Iterator[Trial]:
    """The recommended value, if there is one, and those of `verify_against`."""
    if advice.max_norm is not None:
        yield Trial("recommended", advice.max_norm, advice.rate_interval)
    for text in settings.verify_against:
        yield Trial(text, ADAPTIVE[text]()) if text in ADAPTIVE else Trial(f"max_norm {text}", float(text))


def attempt(
    start: Start, settings: Settings, trial: Trial, unclipped: Recording, warmup: int, watch: Watcher
) -> tuple[VerifiedRun, str]:
    """One trial, and what to note where it failed. Raises KeyboardInterrupt or InterruptError before its first step."""
    try:
        outcome = train(start, settings, trial, unclipped.steps, watch)
    except InterruptError:
        raise
    except GradcheckError as error:
        if not start.group.is_alone:
            raise  # the other ranks wait for this one
        return failed(trial), f"--verify: the run of {trial.name} failed: {error.message}"
    if not starts_alike(outcome.recording, unclipped):
        why = "the entrypoint did not build the same model and data again (does it keep them from call to call?)"
        return failed(trial), f"--verify: {trial.name} can't be compared: {why}"
    note = f"--verify: the run of {trial.name} failed: {outcome.error.message}" if outcome.error else ""
    return summarise(trial, outcome.recording, warmup), note


def train(start: Start, settings: Settings, trial: Trial, steps: int, watch: Watcher) -> Outcome:
    """The run of a trial, recorded without looking into modules."""
    fixed = None if callable(trial.max_norm) else trial.max_norm
    changed = replace(settings, steps=steps, clip=fixed, probe_every=0, stop_above=None)

    def tell(progress: Progress) -> None:
        watch(replace(progress, text=f"verifying: {trial.name}"))

    return watch_training(begin(start, changed, clip="max_norm"), tell, max_norm=trial.max_norm)


def starts_alike(one: Recording, other: Recording) -> bool:
    """Whether the first steps have the same loss and norm, up to what the order of sums on a GPU may change."""
    first, also = ([run.series.loss[0], run.series.grad_norm[0]] for run in (one, other))
    return np.allclose(first, also, rtol=SAME, atol=0, equal_nan=True)


def summarise(trial: Trial, recording: Recording, warmup: int) -> VerifiedRun:
    """A run in a few numbers; its clip rate is of the steps after so many first ones, as the promised one is."""
    rate, promised = clip_rate(recording, warmup), trial.promised
    return VerifiedRun(
        name=trial.name,
        loss=math.nan if recording.run.ended in WITHOUT_LOSS else loss_at_end(recording.series.loss),
        clip_rate=rate,
        steps=recording.steps,
        ended=recording.run.ended,
        inside=None if promised is None or math.isnan(rate) else promised.low <= rate <= promised.high,
    )


def failed(trial: Trial) -> VerifiedRun:
    """A trial that there is no recording of."""
    return VerifiedRun(trial.name, math.nan, math.nan, 0, "failed")


def loss_at_end(losses: Floats) -> float:
    """Mean of the last tenth of losses (n,), at least LEAST_FOR_LOSS of them; NaN where one is not finite."""
    last = losses[-max(LEAST_FOR_LOSS, len(losses) // 10) :]
    return float(last.mean()) if np.isfinite(last).all() else math.nan


def clip_rate(recording: Recording, warmup: int) -> float:
    """Share of steps that were clipped, of those that were taken, after the first `warmup`; NaN without any."""
    series = recording.series
    taken = np.flatnonzero(np.isfinite(series.grad_norm) & ~series.skipped)[warmup:]
    clipped = series.grad_norm_clipped[taken] < series.grad_norm[taken] * (1 - ROUNDING)
    return float(clipped.mean()) if len(taken) else math.nan
