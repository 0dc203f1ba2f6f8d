"""The commands without their shell: drive a workload, observe it, diagnose what was seen, make a report."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gradcheck_cli import __version__
from gradcheck_cli.config import Settings
from gradcheck_cli.drive import entrypoint
from gradcheck_cli.drive.batches import windows
from gradcheck_cli.drive.devices import choose_device, load_checkpoint, seed_everything
from gradcheck_cli.drive.interrupt import deferred_interrupt
from gradcheck_cli.drive.loop import LoopSettings, make_scaler, run
from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.errors import GradcheckError, OutputError, TargetError
from gradcheck_cli.judgement import check_selection, make_report, make_trace_report
from gradcheck_cli.observe.naming import parameters_of
from gradcheck_cli.observe.nan.births import Births
from gradcheck_cli.observe.nan.sinks import bad_from_the_start
from gradcheck_cli.observe.nan.watch import Watch
from gradcheck_cli.observe.recorder import Recorder, RecorderSettings
from gradcheck_cli.records import Recording, Report, RunInfo
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.repro_readme import headline, render_readme
from gradcheck_cli.report.view import View
from gradcheck_cli.tracing.repro import check_is_empty, nothing_to_save, write_repro
from gradcheck_cli.tracing.repro_state import attributes_of, save_state
from gradcheck_cli.tracing.repro_steps import Traits
from gradcheck_cli.tracing.run import Hunt
from gradcheck_cli.tracing.session import Session


@dataclass(frozen=True)
class Progress:
    """Where a run is: steps done of `steps`, and the newest loss and gradient norm that are known."""

    done: int
    steps: int
    loss: float
    grad_norm: float


Watcher = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class Outcome:
    """What was recorded, and the user's error that cut it short, if any."""

    recording: Recording
    error: GradcheckError | None = None


def profile(target: str, settings: Settings, watch: Watcher = ignore) -> tuple[Report, GradcheckError | None]:
    """Run the target and report on its gradients; the error is the one that ended the run early, if any did.

    Raises GradcheckError when nothing could be recorded at all.
    """
    outcome = record(target, settings, watch)
    return make_report("profile", outcome.recording, settings, outcome.error), outcome.error


def record(target: str, settings: Settings, watch: Watcher) -> Outcome:
    """Load the target and record `settings.steps` optimizer steps of it."""
    check_selection(settings)
    workload, device, described = prepare(target, settings)
    return watch_training(workload, device, settings, described, watch)


def prepare(target: str, settings: Settings) -> tuple[Workload, torch.device, RunInfo]:
    """Load the target and make it ready to train; also what is about to run."""
    device = choose_device(settings.device)
    checkpoint = Path(settings.checkpoint).absolute() if settings.checkpoint else None  # before a chdir of theirs
    seed_everything(settings.seed)
    function = entrypoint.find(target)
    workload = make_workload(entrypoint.call(function, target, settings.set), settings.optimizer, settings.lr)
    if checkpoint:
        load_checkpoint(workload.model, checkpoint)
    workload.prepare(device, training=not settings.eval)
    described = replace(describe(target, settings, device, workload), location=entrypoint.location_of(function))
    return workload, device, described


def watch_training(
    workload: Workload, device: torch.device, settings: Settings, described: RunInfo, watch: Watcher
) -> Outcome:
    """Train under a recorder until the steps are done or something ends the run."""
    recorder = Recorder(workload.model, workload.optimizer, recorder_settings(settings))
    loop = LoopSettings(device, settings.precision, settings.steps, settings.clip)
    ended, error = "", None
    with ExitStack() as stack:
        interrupt = stack.enter_context(deferred_interrupt())
        if settings.eager:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(recorder)
        source = stack.enter_context(closing(windows(workload.dataloader, settings.accumulate)))
        try:
            for _ in run(workload, source, loop, recorder.inspect):
                watch(Progress(recorder.steps, settings.steps, recorder.latest("loss"), recorder.latest("grad_norm")))
                if recorder.ended or interrupt.requested:
                    break
        except KeyboardInterrupt:
            interrupt.requested = True
        except GradcheckError as failure:
            ended, error = "failed", failure
    ended = ended or ("interrupted" if interrupt.requested else "")
    return finish(recorder, described, settings, ended, error)


def finish(
    recorder: Recorder, described: RunInfo, settings: Settings, ended: str, error: GradcheckError | None
) -> Outcome:
    """What was recorded, with how it ended. Raises the error, or another, when not even one step was."""
    recording = recorder.recording(described)
    if not recording.steps:
        raise error or nothing_recorded(described, ended)
    short = "data-exhausted" if recording.steps < settings.steps else "completed"
    notes = described.notes + compiled_note(recording)
    run_info = replace(described, ended=ended or recorder.ended or short, notes=notes)
    return Outcome(replace(recording, run=run_info), error)


def nothing_recorded(described: RunInfo, ended: str) -> GradcheckError:
    """Why there is no step although nothing failed."""
    if ended == "interrupted":
        return GradcheckError("interrupted before the first step was done")
    return TargetError(
        f"{described.optimizer} does not call torch's optimizer hooks, so no step could be measured",
        "call super().__init__(...) in its __init__; a wrapper: return the optimizer that it wraps",
    )


def nan_trace(
    target: str, settings: Settings, watch: Watcher = ignore, save_repro: Path | None = None
) -> tuple[Report, GradcheckError | None]:
    """Train the target until something is not finite, and report where it came from.

    `save_repro` is a folder for what reproduces it; OutputError is raised before the run when it is not empty. The
    error is the user's own that ended the run, if any did, or says why the folder could not be written.
    """
    check_selection(settings)
    root = Path.cwd()  # before a chdir of theirs
    if save_repro:
        check_is_empty(save_repro)
    births = Births()
    with births.noted():
        workload, device, described = prepare(target, settings)
    loop = LoopSettings(device, settings.precision, settings.steps, settings.clip)
    known_bad = bad_from_the_start(workload.model)
    session = Session(workload, loop, make_scaler(loop), known_bad, births)
    at_start = attributes_of(session) if save_repro else {}
    with ExitStack() as stack:
        source = stack.enter_context(closing(windows(workload.dataloader, settings.accumulate)))
        first_epoch = itertools.takewhile(lambda window: not window[0].epoch, source)
        hunt = Hunt(session, first_epoch if settings.one_epoch else source, progress_of(watch, settings.steps))
        ending = hunt.run()
    short = "data-exhausted" if ending.trace.steps < settings.steps and not settings.one_epoch else "completed"
    run_info = replace(described, ended=ending.ended or short)
    parameters = [info for info, _ in parameters_of(workload.model, workload.optimizer)]
    report = make_trace_report(run_info, hunt.series(), ending.trace, settings, ending.error, parameters)
    if not save_repro:
        return report, ending.error
    if not ending.fault:
        return with_note(report, nothing_to_save(ending.trace)), ending.error
    saved = save_state(ending.fault, ending.trace, settings, at_start)
    return save(report, Traits(ending.fault.session, settings, saved, target, root), save_repro, ending.error)


def save(
    report: Report, traits: Traits, folder: Path, error: GradcheckError | None
) -> tuple[Report, GradcheckError | None]:
    """Write what reproduces a failing step, and say in the report what of it could not be saved."""
    finding = str(render(report, "table", View(width=100)))
    readme = render_readme(report, finding, traits.saved.contents, traits.saved.lost)
    try:
        write_repro(folder, traits, headline(report), readme)
    except OutputError as failure:  # the finding must not be lost with it
        return replace(report, exit_code=2), error or failure
    return with_note(report, f"{folder.name}/repro.py runs the step again", *traits.saved.lost), error


def with_note(report: Report, *notes: str) -> Report:
    """The report with more to say of the run."""
    return replace(report, run=replace(report.run, notes=(*report.run.notes, *notes)))


def progress_of(watch: Watcher, steps: int) -> Callable[[int, Watch], None]:
    """Tell a watcher of a run how far a hunt is."""
    return lambda done, seen: watch(Progress(done, steps, seen.loss, seen.grad_norm))


def recorder_settings(settings: Settings) -> RecorderSettings:
    """The part of the settings that is about recording."""
    return RecorderSettings(
        probe_every=settings.probe_every,
        max_rows=settings.max_recorded_steps,
        eager=settings.eager,
        stop_above=settings.stop_above,
        keep_going=settings.keep_going,
    )


def describe(target: str, settings: Settings, device: torch.device, workload: Workload) -> RunInfo:
    """What is about to run."""
    versions = {
        "gradcheck": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return RunInfo(
        target=target,
        device=str(device),
        precision=settings.precision,
        seed=settings.seed,
        accumulate=settings.accumulate,
        max_norm=settings.clip,
        steps_requested=settings.steps,
        training=not settings.eval,
        has_optimizer=workload.has_optimizer,
        optimizer=type(workload.optimizer).__name__ if workload.has_optimizer else "",
        uses_scaler=settings.precision == "fp16",
        notes=workload.notes,
        versions=versions,
        threads=torch.get_num_threads(),
    )


def compiled_note(recording: Recording) -> tuple[str, ...]:
    """What compilation hides, if anything."""
    if not any(module.compiled for module in recording.modules):
        return ()
    return ("torch.compile hides activations: parameters are measured, modules are not (--eager runs uncompiled)",)
