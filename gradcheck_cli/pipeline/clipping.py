"""recommend-clip, from the target to the report."""

from __future__ import annotations

from dataclasses import replace

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.judgement import check_selection, make_clip_report
from gradcheck_cli.pipeline.preparation import Progress, Ready, Watcher, begin, ignore, load
from gradcheck_cli.pipeline.profiling import never, watch_training
from gradcheck_cli.pipeline.scripting import report_on
from gradcheck_cli.pipeline.stability import JointStability, Stability, shortfall
from gradcheck_cli.pipeline.verification import verify
from gradcheck_cli.records import Recording, Report
from gradcheck_cli.targets import Script


def recommend_clip(
    target: str, settings: Settings, watch: Watcher = ignore, group: Group = ALONE
) -> tuple[Report, GradcheckError | None]:
    """Train the target unclipped and recommend a max_norm, which `settings.verify` has trained with in turn.

    The error is the one that ended the unclipped run early, if any did; a failure of those that verify is noted.
    Raises GradcheckError when nothing could be recorded at all.
    """
    check_selection(settings)
    start = load(target, settings, group)
    ready = begin(start, settings, clip="max_norm")
    settings = ready.settings
    recording, error = train_unclipped(ready, watch)
    report = make_clip_report(recording, settings, error)
    if not settings.verify or report.clip is None:
        return report, error
    runs, notes = verify(start, replace(settings, log=()), recording, report.clip, watch)
    return make_clip_report(with_notes(recording, *notes), settings, error, runs), error


def train_unclipped(ready: Ready, watch: Watcher) -> tuple[Recording, GradcheckError | None]:
    """Train until the steps are done, or the percentile is known well enough for `settings.until_stable`."""
    settings = ready.settings
    stability = Stability(settings.percentile)

    def tell(progress: Progress) -> None:
        watch(replace(progress, text=stability.text))

    enough = stability if settings.until_stable else never
    outcome = watch_training(ready, tell, enough)
    notes = shortfall(outcome.recording, settings.percentile) if settings.until_stable else ()
    return with_notes(outcome.recording, *notes), outcome.error


def recommend_clip_of_script(
    script: Script, settings: Settings, watch: Watcher
) -> tuple[Report, GradcheckError | None]:
    """Run a script as it is, and recommend a max_norm for each model that it trains; else as `recommend_clip`."""
    stability = JointStability(settings.percentile)

    def tell(progress: Progress) -> None:
        watch(replace(progress, text=stability.text))

    def judge(recording: Recording, settings: Settings, error: GradcheckError | None) -> Report:
        notes = shortfall(recording, settings.percentile) if settings.until_stable else ()
        left_out = ("--verify was left out: a script is not run twice",) if settings.verify else ()
        return make_clip_report(with_notes(recording, *notes, *left_out), settings, error)

    return report_on(script, settings, tell, judge, stability if settings.until_stable else never)


def with_notes(recording: Recording, *notes: str) -> Recording:
    """The recording with more to say of its run."""
    return replace(recording, run=replace(recording.run, notes=(*recording.run.notes, *notes)))
