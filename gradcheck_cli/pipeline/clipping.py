"""recommend-clip, from the target to the report."""

from __future__ import annotations

from dataclasses import replace

from gradcheck_cli.config import Settings
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.judgement import check_selection, make_clip_report
from gradcheck_cli.pipeline.preparation import Progress, Start, Watcher, begin, ignore, load
from gradcheck_cli.pipeline.profiling import never, watch_training
from gradcheck_cli.pipeline.stability import Stability
from gradcheck_cli.pipeline.verification import verify
from gradcheck_cli.records import Recording, Report


def recommend_clip(target: str, settings: Settings, watch: Watcher = ignore) -> tuple[Report, GradcheckError | None]:
    """Train the target unclipped and recommend a max_norm, which `settings.verify` has trained with in turn.

    The error is the one that ended the unclipped run early, if any did; a failure of those that verify is noted.
    Raises GradcheckError when nothing could be recorded at all.
    """
    check_selection(settings)
    start = load(target, settings)
    recording, error = train_unclipped(start, settings, watch)
    report = make_clip_report(recording, settings, error)
    if not settings.verify or report.clip is None:
        return report, error
    runs, notes = verify(start, settings, recording, report.clip, watch)
    return make_clip_report(with_notes(recording, *notes), settings, error, runs), error


def train_unclipped(start: Start, settings: Settings, watch: Watcher) -> tuple[Recording, GradcheckError | None]:
    """Train until the steps are done, or the percentile is known well enough for `settings.until_stable`."""
    stability = Stability(settings.percentile)

    def tell(progress: Progress) -> None:
        watch(replace(progress, text=stability.text))

    workload, device, described = begin(start, settings)
    enough = stability if settings.until_stable else never
    outcome = watch_training(workload, device, settings, described, tell, enough)
    if settings.until_stable and outcome.recording.run.ended != "stable":
        note = f"--until-stable was not reached: {stability.text or 'too few steps to tell'}"
        return with_notes(outcome.recording, note), outcome.error
    return outcome.recording, outcome.error


def with_notes(recording: Recording, *notes: str) -> Recording:
    """The recording with more to say of its run."""
    return replace(recording, run=replace(recording.run, notes=(*recording.run.notes, *notes)))
