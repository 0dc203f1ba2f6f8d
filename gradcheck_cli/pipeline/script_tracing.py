"""nan-trace on a whole script: one run that watches, and where a step is not finite a second one that traces it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from traceback import walk_tb

import numpy as np
from torch import Tensor

from gradcheck_cli.config import Settings
from gradcheck_cli.drive import script as scripts
from gradcheck_cli.drive.ranks.group import find_place
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.judgement import check_selection, make_trace_report
from gradcheck_cli.observe.naming import parameters_of
from gradcheck_cli.observe.nan.states import is_finite
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.pipeline.preparation import Progress, Watcher
from gradcheck_cli.pipeline.profiling import run_eagerly
from gradcheck_cli.pipeline.scripting import describe, nothing_trained
from gradcheck_cli.records import Report
from gradcheck_cli.tape import NanOrigin, NanTrace
from gradcheck_cli.targets import Script
from gradcheck_cli.tracing.fault import is_numeric
from gradcheck_cli.tracing.script_process import Beginning, repaired, replay
from gradcheck_cli.tracing.script_proof import find_origins
from gradcheck_cli.tracing.script_replay import MORE_STEPS, QUIET, Answer, Request
from gradcheck_cli.tracing.script_watch import FaultWatch, Span

CHANGED = (
    "the script is not deterministic: seed random, numpy and torch in it, set PYTHONHASHSEED",
    "kernels that are not deterministic (try torch.use_deterministic_algorithms(True))",
    "what the first run left behind: checkpoints, caches, files that it wrote",
)


@dataclass(frozen=True)
class FirstRun:
    """What a script was seen to do: `span` where something was not finite, `error` its own failure."""

    watched: tuple[Watched, ...]
    span: Span | None
    ended: str
    error: GradcheckError | None

    @property
    def main(self) -> Watched | None:
        """The model to report on: the one that failed, else the one with the most steps."""
        if self.span and self.span.model < len(self.watched):
            return self.watched[self.span.model]
        return max(self.watched, key=lambda one: one.recorder.taken, default=None)


def nan_trace(
    script: Script, settings: Settings, watch: Watcher, save_repro: object = None
) -> tuple[Report, GradcheckError | None]:
    """Run a script until something is not finite, and report where it came from.

    Without `steps` of the user's it may run to its end. The error is the script's own, if it failed. Raises
    GradcheckError when nothing was trained, ConfigError for `save_repro` and for one of several ranks.
    """
    if save_repro:
        raise ConfigError(
            f"--save-repro saves what one step needs, and gradcheck can't tell which part of {script.place} that is",
            f"leave it out: the script is traced all the same; or name a callable that makes model and data:"
            f" {script.place}:build",
        )
    if (place := find_place()) and place.size > 1:
        raise ConfigError(
            "nan-trace runs a script again in a process of its own, which has no other ranks",
            f"run it without the launcher, or name a callable that makes model and data: {script.place}:build",
        )
    check_selection(settings)
    settings = replace(settings, to_the_end=settings.one_epoch)
    beginning = Beginning.now()
    seen = run(script, settings, watch)
    if seen.span is None or seen.main is None:
        return report_clean(seen, script, settings)
    watch(progress_of(seen.main, settings, "runs again, to be traced"))
    try:
        answer = replay(Request(script, beginning.random, seen.span), beginning)
        origins = prove(script, beginning, seen.span, seen.main, answer)
    except KeyboardInterrupt:
        answer, origins = Answer(failure="it was interrupted when it was run again"), ()
    if answer.tape is None and seen.error and not seen.span.sinks and not is_numeric(seen.error):
        return report_clean(seen, script, settings)
    return report_fault(seen, seen.span, seen.main, answer, origins, script, settings)


def run(script: Script, settings: Settings, watch: Watcher) -> FirstRun:
    """Watch a script until it ends or something is not finite."""
    span: Span | None = None

    def stepped(one: Watched) -> None:
        nonlocal span
        watch(progress_of(one, settings))
        span = session.look(one)
        if span or (not settings.to_the_end and one.recorder.taken == settings.steps):
            raise scripts.ScriptStop

    ended, error = "", None
    with run_eagerly(settings), FaultWatch(QUIET, stepped) as session:
        try:
            scripts.run(script)
        except KeyboardInterrupt:
            ended = "interrupted"
        except GradcheckError as failure:
            ended, error = "failed", failure
    span = span or session.find()
    if error and not span and (is_numeric(error) or holds_bad_number(error)):
        span = session.running()
    return FirstRun(tuple(session.watched), span, ended, error)


def holds_bad_number(error: GradcheckError) -> bool:
    """Whether a variable where the script raised or called sys.exit is not finite: that may be why."""
    cause = error.__cause__
    frames = [frame for frame, _ in walk_tb(cause.__traceback__ if cause else None)]
    values = [value for frame in frames for value in frame.f_locals.values()]
    tensors = [value for value in values if isinstance(value, Tensor) and value.numel() == 1]
    return not all(isfinite(value) for value in values if isinstance(value, float)) or not all(map(is_finite, tensors))


def progress_of(one: Watched, settings: Settings, text: str = "") -> Progress:
    """How far a model is."""
    recorder = one.recorder
    limit = None if settings.to_the_end else settings.steps
    return Progress(recorder.steps, limit, recorder.latest("loss"), recorder.latest("grad_norm"), text)


def report_clean(seen: FirstRun, script: Script, settings: Settings) -> tuple[Report, GradcheckError | None]:
    """Everything was finite. Raises what the script raised if it did not train at all."""
    one = seen.main
    if one is None or not one.recorder.taken:
        raise seen.error or nothing_trained(script, seen.ended)
    skipped = int(np.count_nonzero(one.recorder.series().skipped))
    trace = NanTrace(one.recorder.taken, skipped=skipped)
    return report(seen, one, trace, script, settings, seen.error, others_note(seen, one)), seen.error


def report_fault(
    seen: FirstRun,
    span: Span,
    one: Watched,
    answer: Answer,
    origins: tuple[NanOrigin, ...],
    script: Script,
    settings: Settings,
) -> tuple[Report, GradcheckError | None]:
    """Something was not finite: what the second run made of it. A failure of the script's that followed is no more."""
    tape = answer.tape
    step = tape.step if tape else span.last
    skipped = int(np.count_nonzero(one.recorder.series().skipped[:step]))
    error = answer.error or (scripts.describe_failure(seen.error) if seen.error and not tape else "")
    found = NanTrace(max(step, span.last) + 1, step, span.sinks, error=error, skipped=skipped)
    if tape is None:
        return report(seen, one, not_reproduced(found, span, answer), script, settings), None
    notes = recurred_note(span, step)
    found = replace(found, sinks=tape.sinks, operations=tape.operations, reproduced=not notes, origins=origins)
    return report(seen, one, found, script, settings, notes=notes), None


def prove(script: Script, beginning: Beginning, span: Span, one: Watched, answer: Answer) -> tuple[NanOrigin, ...]:
    """Where the bad values on the tape came from; each origin takes another run of the script."""
    tape = answer.tape
    if tape is None:
        return ()
    trained = sum(parameter.requires_grad for parameter in one.model.parameters())
    return find_origins(tape, trained, lambda repairs: repaired(script, beginning, span, tape.step, repairs))


def not_reproduced(found: NanTrace, span: Span, answer: Answer) -> NanTrace:
    """Bad in the first run only."""
    steps = f"step {span.last} and the {MORE_STEPS} after it" if answer.steps else f"step {span.last}"
    reason = answer.failure or f"{steps} were finite when the script was run again"
    return replace(found, reproduced=False, notes=(reason, *CHANGED))


def recurred_note(span: Span, step: int) -> tuple[str, ...]:
    """Where it recurred, if that is not where it was."""
    if step <= span.last:
        return ()
    return (f"not deterministic: in the first run step {span.last} was not finite, in the second step {step}",)


def others_note(seen: FirstRun, one: Watched) -> tuple[str, ...]:
    """The other models of a clean run."""
    others = [other for other in seen.watched if other is not one and other.recorder.taken]
    if not others:
        return ()
    named = ", ".join(f"{other.name} ({other.recorder.taken} steps)" for other in others)
    return (f"this counts the steps of {one.name}; all was finite in {named}, too",)


def report(
    seen: FirstRun,
    one: Watched,
    trace: NanTrace,
    script: Script,
    settings: Settings,
    error: GradcheckError | None = None,
    notes: tuple[str, ...] = (),
) -> Report:
    """The report on one model."""
    described = describe(one, script, settings, seen.ended if trace.clean else "nonfinite", len(seen.watched) > 1)
    run_info = replace(described, notes=(*described.notes, *notes))
    parameters = [info for info, _ in parameters_of(one.model, one.optimizer)]
    return make_trace_report(run_info, one.recorder.series(), trace, settings, error, parameters)
