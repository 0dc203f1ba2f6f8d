"""profile, from the target to the report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

import torch

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.batches import Batch
from gradcheck_cli.drive.interrupt import deferred_interrupt
from gradcheck_cli.drive.loop import LoopSettings, MaxNorm, run
from gradcheck_cli.drive.ranks.group import ALONE, Group
from gradcheck_cli.errors import GradcheckError, TargetError
from gradcheck_cli.judgement import check_selection, make_report
from gradcheck_cli.loggers import Log
from gradcheck_cli.observe.peers import ALONE as NO_PEERS
from gradcheck_cli.observe.peers import Peers
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.pipeline.examining import examine, unexamined
from gradcheck_cli.pipeline.kept_batches import KeptBatches
from gradcheck_cli.pipeline.preparation import Built, Progress, Ready, Watcher, ignore, prepare
from gradcheck_cli.pipeline.team import Ahead
from gradcheck_cli.records import Recording, Report, RunInfo

Enough = Callable[[int, Recorder], bool]
"""Whether a run may end after so many steps."""


def never(steps: int, recorder: Recorder) -> bool:
    """Go on to the last step."""
    return False


class InterruptError(GradcheckError):
    """Ctrl-C came before there was a step to report."""


@dataclass(frozen=True)
class Outcome:
    """What was recorded, and the user's error that cut it short, if any."""

    recording: Recording
    error: GradcheckError | None = None


def profile(
    target: str | Built, settings: Settings, watch: Watcher = ignore, group: Group = ALONE
) -> tuple[Report, GradcheckError | None]:
    """Run the target and report on its gradients; the error is the one that ended the run early, if any did.

    Raises GradcheckError when nothing could be recorded at all.
    """
    outcome = record(target, settings, watch, group)
    return make_report("profile", outcome.recording, settings, outcome.error), outcome.error


def record(target: str | Built, settings: Settings, watch: Watcher, group: Group = ALONE) -> Outcome:
    """Load the target and record `settings.steps` optimizer steps of it."""
    check_selection(settings)
    ready = prepare(target, settings, group)
    if not group.is_alone:  # to look at a batch again, all ranks would have to
        outcome = watch_training(ready, watch)
        return replace(outcome, recording=replace(outcome.recording, examination=unexamined(ready.settings)))
    kept = KeptBatches(ready.workload.model)
    outcome = watch_training(ready, watch, kept=kept)
    kept.judge(outcome.recording.series)
    examination = examine(outcome.recording, ready.workload, ready.device, ready.settings, kept)
    return replace(outcome, recording=replace(outcome.recording, examination=examination))


def watch_training(
    ready: Ready,
    watch: Watcher,
    enough: Enough = never,
    max_norm: MaxNorm | None = None,
    kept: KeptBatches | None = None,
) -> Outcome:
    """Train under a recorder until the steps are done, they are `enough` (`stable`), or something else ends the run.

    Gradients are clipped at `max_norm`, or else at the settings' `clip` if there is one. What is worth another look is
    in `kept` afterwards.
    """
    workload, device, described, settings, team = ready
    log, peers = Log(settings.log), team.peers_of(workload.model)
    recorder = Recorder(workload.model, workload.optimizer, recorder_settings(settings, log, peers))
    loop = LoopSettings(device, settings.precision, settings.steps, settings.clip if max_norm is None else max_norm)
    ended, error = "", None
    with ExitStack() as stack:
        interrupt = stack.enter_context(deferred_interrupt())
        stack.enter_context(run_eagerly(settings))
        stack.enter_context(recorder)
        source = Ahead(stack.enter_context(closing(workload.windows(settings.accumulate))))
        batches: Iterator[list[Batch]] = source
        try:
            if kept:
                workload, batches = kept.watching(workload), kept.keep(source)
            for step in run(workload, batches, loop, recorder.inspect):
                watch(Progress(recorder.steps, settings.steps, recorder.latest("loss"), recorder.latest("grad_norm")))
                if kept and kept.judged < recorder.steps:
                    kept.judge(recorder.series(kept.judged), kept.judged)
                if interrupt.requested:
                    ended = "interrupted"
                elif enough(step + 1, recorder):
                    ended = "stable"
                ended = team.agree(recorder.ended or ended, recorder, source, is_last=step + 1 == settings.steps)
                if ended:
                    break
        except KeyboardInterrupt:
            if not team.group.is_alone:
                raise  # what the others put together needs all of them
            interrupt.requested = True
        except GradcheckError as failure:
            if not team.group.is_alone:
                raise
            ended, error = "failed", failure
    ended = ended or ("interrupted" if interrupt.requested else "")
    outcome = finish(recorder, described, settings, ended, error, log)
    return replace(outcome, recording=team.join(outcome.recording, workload.model, peers))


def finish(
    recorder: Recorder, described: RunInfo, settings: Settings, ended: str, error: GradcheckError | None, log: Log
) -> Outcome:
    """What was recorded, with how it ended. Raises the error, or another, when not even one step was."""
    with log:  # its last steps may come over only now
        recording = recorder.recording(described)
    if not recording.steps:
        raise error or nothing_recorded(described, ended)
    short = "data-exhausted" if recording.steps < settings.steps else "completed"
    notes = described.notes + compiled_note(recording) + log.notes
    run_info = replace(described, ended=ended or recorder.ended or short, notes=notes)
    return Outcome(replace(recording, run=run_info), error)


def nothing_recorded(described: RunInfo, ended: str) -> GradcheckError:
    """Why there is no step although nothing failed."""
    if ended == "interrupted":
        return InterruptError("interrupted before the first step was done")
    return TargetError(
        f"{described.optimizer} does not call torch's optimizer hooks, so no step could be measured",
        "call super().__init__(...) in its __init__; a wrapper: return the optimizer that it wraps",
    )


def recorder_settings(settings: Settings, log: Log, peers: Peers = NO_PEERS) -> RecorderSettings:
    """The part of the settings that is about recording."""
    return RecorderSettings(
        probe_every=settings.probe_every,
        max_rows=settings.max_recorded_steps,
        eager=settings.eager,
        stop_above=settings.stop_above,
        keep_going=settings.keep_going,
        tell=log.wanted,
        peers=peers,
    )


@contextmanager
def run_eagerly(settings: Settings) -> Iterator[None]:
    """Run compiled code uncompiled, if the settings ask for it."""
    if not settings.eager:
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `torch.compile")  # hooks on a compiled module, which is none
        yield


def compiled_note(recording: Recording) -> tuple[str, ...]:
    """What compilation hides, if anything."""
    if not any(module.compiled for module in recording.modules):
        return ()
    return ("torch.compile hides activations: parameters are measured, modules are not (--eager runs uncompiled)",)
