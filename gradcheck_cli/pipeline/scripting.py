"""All commands on a whole script: run it, watch what trains in it, report on each model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gradcheck_cli.config import Settings
from gradcheck_cli.drive import script as scripts
from gradcheck_cli.errors import GradcheckError, TargetError
from gradcheck_cli.judgement import check_selection
from gradcheck_cli.observe.audit.auditor import Auditor
from gradcheck_cli.observe.session import Session
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.pipeline.preparation import Progress, Watcher, versions
from gradcheck_cli.pipeline.profiling import compiled_note, recorder_settings, run_eagerly
from gradcheck_cli.records import Recording, Report, RunInfo
from gradcheck_cli.targets import Script

Judge = Callable[[Recording, Settings, GradcheckError | None], Report]


@dataclass(frozen=True)
class ScriptRun:
    """What a script was seen to do; `error` is its own failure, if it failed."""

    recordings: tuple[Recording, ...]
    error: GradcheckError | None = None


def report_on(script: Script, settings: Settings, watch: Watcher, judge: Judge) -> tuple[Report, GradcheckError | None]:
    """Run a script and judge every model that it trained; the first report holds the others.

    The error is the script's own, if it failed. Raises GradcheckError when no step was recorded.
    """
    check_selection(settings)
    seen = record(script, settings, watch)
    first, *others = [judge(recording, settings, seen.error) for recording in seen.recordings]
    worst = max(report.exit_code for report in (first, *others))
    return replace(first, others=tuple(others), exit_code=worst), seen.error


def record(script: Script, settings: Settings, watch: Watcher) -> ScriptRun:
    """Run the script to its end, or to the end that the settings ask for, and record every optimizer's steps."""
    limit, stopped = None if settings.to_the_end else settings.steps, False

    def stepped(one: Watched) -> None:
        nonlocal stopped
        recorder = one.recorder
        watch(Progress(recorder.steps, limit, recorder.latest("loss"), recorder.latest("grad_norm")))
        if recorder.ended or (limit and recorder.taken >= limit):
            stopped = True
            raise scripts.ScriptStop

    error, ended = None, ""
    session, auditor = Session(recorder_settings(settings), stepped), Auditor()
    with run_eagerly(settings), session, auditor:
        try:
            scripts.run(script)
        except KeyboardInterrupt:
            ended = "interrupted"
        except GradcheckError as failure:
            error, ended = failure, "failed"
    trained = [one for one in session.watched if one.recorder.taken]
    if not trained:
        raise error or nothing_trained(script, ended)
    first, *others = [finish(one, script, settings, ended, len(trained) > 1) for one in trained]
    return ScriptRun((replace(first, audit=auditor.audit(ended=not stopped)), *others), error)


def nothing_trained(script: Script, ended: str) -> TargetError:
    """The error for a run without a single step."""
    if ended == "interrupted":
        return TargetError("interrupted before there was anything to report")
    return TargetError(
        f"{script.words} ran to its end, but no optimizer took a step",
        "does it need arguments to train? They follow --: gradcheck profile train.py -- --epochs 1",
    )


def finish(one: Watched, script: Script, settings: Settings, ended: str, is_one_of_several: bool) -> Recording:
    """What was recorded of one model."""
    recording = one.recorder.recording(describe(one, script, settings, ended, is_one_of_several))
    return replace(recording, run=replace(recording.run, notes=compiled_note(recording)))


def describe(one: Watched, script: Script, settings: Settings, ended: str, is_one_of_several: bool) -> RunInfo:
    """How one model was trained, as far as it was seen."""
    return RunInfo(
        target=script.words,
        model=one.name if is_one_of_several else "",
        device=str(one.device),
        precision=one.precision,
        seed=None,
        accumulate=max(1, one.backwards),
        max_norm=one.recorder.max_norm,
        steps_requested=0 if settings.to_the_end else settings.steps,
        training=one.training,
        optimizer="updates by hand" if one.by_hand else type(one.optimizer).__name__,
        uses_scaler=one.scaled,
        sees_loss=one.sees_loss,
        ended=ended or one.recorder.ended or "completed",
        versions=versions(),
        threads=torch.get_num_threads(),
    )
