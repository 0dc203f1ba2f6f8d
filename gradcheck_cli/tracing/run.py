"""Watch a run window by window; when one is suspicious, find the step, trace it, prove what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import numpy as np

from gradcheck_cli.drive.batches import Batch, clone
from gradcheck_cli.drive.interrupt import deferred_interrupt
from gradcheck_cli.drive.loop import run
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.nan.watch import Watch
from gradcheck_cli.records import Series
from gradcheck_cli.tape import NanTrace, Tape
from gradcheck_cli.tracing.fault import Fault, locate
from gradcheck_cli.tracing.proof import find_origins
from gradcheck_cli.tracing.ranks import Lead, find_guilty, on_ranks, unsynchronised
from gradcheck_cli.tracing.samples import find_samples
from gradcheck_cli.tracing.session import Session, trace

FLOATS = ("loss", "grad_norm", "seconds", "loss_scale")
EXAMINED_SKIPS = 3
MAY_DIFFER = (
    "kernels that are not deterministic (try torch.use_deterministic_algorithms(True))",
    "state that cannot be put back: generators, files, threads, caches of libraries",
)
SEEN = {"loss": "the loss", "state": "a parameter or buffer", "gradient": "a gradient"}


@dataclass(frozen=True)
class Ending:
    """How a watched run ended: with what was found, the user's error if there was one, and a word for RunInfo."""

    trace: NanTrace
    ended: str
    fault: Fault | None = None
    error: GradcheckError | None = None


class Hunt:
    """One run under watch."""

    def __init__(self, session: Session, source: Iterator[list[Batch]], report: Callable[[int, Watch], None]) -> None:
        self._session, self._source, self._report = session, source, report
        self.watch = Watch(session.workload.model, clone, session.known_bad)
        self._start, self._ranks = session.snapshot(), session.ranks
        self._hooks = ExitStack()
        self._examined = 0

    def run(self) -> Ending:
        """Train until the steps are done, something is not finite, the user stops it or their code raises."""
        with ExitStack() as stack:
            interrupt = stack.enter_context(deferred_interrupt())
            stack.callback(self._hooks.close)
            self._hooks.enter_context(observed(self.watch))
            try:
                for number in self._steps():
                    over = self.watch.end_step()
                    self._report(number + 1, self.watch)
                    over, stop = self._ranks.any_of(over, interrupt.requested)
                    if (over or stop) and (ending := self._look()):
                        return ending
                    if stop:
                        interrupt.requested = True
                        break
            except KeyboardInterrupt:
                interrupt.requested = True
            except GradcheckError as error:
                if not self._ranks.group.is_alone:
                    raise  # the others wait for this rank, and cannot look with it
                return self._failed(error)
            return self._look() or Ending(self._clean(), "interrupted" if interrupt.requested else "")

    def series(self) -> Series:
        """What is known of the steps that were watched."""
        seen = self.watch.history
        floats = {name: np.array([getattr(step, name) for step in seen], dtype=float) for name in FLOATS}
        unknown = np.full(len(seen), np.nan)
        width = max((len(step.lr) for step in seen), default=0)
        return Series(
            **floats,
            grad_norm_clipped=unknown,
            overhead=unknown,
            lr=np.array([(*step.lr, *[np.nan] * (width - len(step.lr))) for step in seen]).reshape(len(seen), width),
            skipped=np.array([step.skipped for step in seen], dtype=bool),
            batch=np.array([step.batch for step in seen], dtype=np.int64),
            epoch=np.array([step.epoch for step in seen], dtype=np.int64),
            nonfinite_inputs=np.zeros(len(seen), dtype=np.int64),
            examples=np.zeros(len(seen), dtype=np.int64),
        )

    def _steps(self) -> Iterator[int]:
        session = self._session
        return run(session.workload, self._source, session.loop, self.watch.inspect, session.scaler)

    def _clean(self) -> NanTrace:
        return NanTrace(len(self.watch.history), skipped=sum(step.skipped for step in self.watch.history))

    def _look(self) -> Ending | None:
        """The window is over: look at it, closely where that is called for, and begin the next."""
        if not self.watch.steps:
            return None
        suspicion = self._ranks.worst(self.watch.look())
        skips = self._ranks.most(sum(step.skipped for step in self.watch.steps))
        (collapsed,) = self._ranks.any_of(self.watch.scale_collapsed)
        if suspicion or (skips and self._examined < EXAMINED_SKIPS) or collapsed:
            self._hooks.close()
            if ending := self._examine(suspicion):
                return ending
            self._examined += skips
            self._hooks.enter_context(observed(self.watch))
        self._start.take()
        self.watch.begin_window()
        return None

    def _examine(self, suspicion: str) -> Ending | None:
        """Replay the window; afterwards all is as it was, unless something was found."""
        end = self._session.snapshot()
        raised: tuple[str, ...] = ()
        try:
            fault = locate(self._session, self.watch.steps, self._start)
        except GradcheckError as error:  # in the replay only
            if not self._ranks.group.is_alone:
                raise
            fault, raised = None, (f"run again, a step raised {error.message.partition(': ')[2]}",)
        if fault:
            return Ending(self._investigate_on_ranks(fault), "nonfinite", fault)
        if suspicion and suspicion != "norm":
            return Ending(self._not_reproduced(suspicion, raised), "nonfinite")
        if suspicion:
            self.watch.look_exactly()
        end.restore(resume=True)
        return None

    def _failed(self, error: GradcheckError) -> Ending:
        """The user's code raised: torch refused a value, something was not finite before, or neither."""
        self._hooks.close()
        suspicion = self.watch.look() if self.watch.steps else ""
        fault = None
        if self.watch.cut_short() or suspicion:
            with suppress(GradcheckError):  # the same, or one of the replay's own: the first is what the user saw
                fault = locate(self._session, self.watch.steps, self._start)
        if fault is None:
            return Ending(self._clean(), "failed", error=error)
        return Ending(self._investigate(fault), "nonfinite", fault)

    def _investigate_on_ranks(self, fault: Fault) -> NanTrace:
        """The trace of the rank on which it began; where there are others, they help."""
        if self._ranks.group.is_alone:
            return self._investigate(fault)
        if self._ranks.is_local:
            with unsynchronised():
                found = self._investigate(fault)
            if guilty := self._ranks.those_with(found.reproduced):
                return on_ranks(found, guilty)
        return self._investigate_together(fault)

    def _investigate_together(self, fault: Fault) -> NanTrace:
        """All replay at once what comes about only with the others; the first on which it begins leads."""
        tape = trace(fault.session, fault.step, fault.before)
        guilty = find_guilty(tape, self._ranks)
        if not guilty:
            return replace(self._found(fault, tape), reproduced=False, notes=MAY_DIFFER)
        lead = Lead(self._ranks.group, guilty[0])
        if not lead.is_mine:
            lead.follow(fault.step, fault.before, fault.session.run_again)
            return on_ranks(self._found(fault, tape), guilty)
        found = self._investigate(replace(fault, session=replace(fault.session, lead=lead)))
        lead.end()
        return on_ranks(found, guilty)

    def _investigate(self, fault: Fault) -> NanTrace:
        """Trace the step and prove its origins."""
        tape = trace(fault.session, fault.step, fault.before)
        found = self._found(fault, tape)
        if not tape.sinks:
            return replace(found, reproduced=False, notes=(*found.notes, *MAY_DIFFER))
        origins = [find_samples(fault, tape, origin) for origin in find_origins(fault, tape)]
        return replace(found, origins=tuple(origins))

    def _found(self, fault: Fault, tape: Tape) -> NanTrace:
        """What is known of the step without its origins."""
        return NanTrace(
            steps=fault.step.number + 1,
            step=fault.step.number,
            sinks=tape.sinks or fault.sinks,
            notes=fault.notes + self._compiled_note(),
            error=fault.error,
            skipped=sum(step.skipped for step in self.watch.history[: fault.step.number]),
            operations=tape.operations,
        )

    def _not_reproduced(self, suspicion: str, raised: tuple[str, ...]) -> NanTrace:
        """Bad in the run, finite in its replay."""
        bad_loss = next((step.number for step in self.watch.history if step.nonfinite), None)
        number = bad_loss if suspicion == "loss" else self.watch.nan_gradient if suspicion == "gradient" else None
        number = len(self.watch.history) - 1 if number is None else number
        note = f"{SEEN[suspicion]} was not finite in step {number}, but is when the step is run again"
        notes = (*(raised or (note,)), *MAY_DIFFER)
        return NanTrace(steps=len(self.watch.history), step=number, reproduced=False, notes=notes)

    def _compiled_note(self) -> tuple[str, ...]:
        compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in self._session.workload.model.modules())
        return ("compiled modules were replayed in eager mode",) if compiled else ()
