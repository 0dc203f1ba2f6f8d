"""Which step of a window fails first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.nan.held import HeldStep
from gradcheck_cli.observe.nan.sinks import Sinks
from gradcheck_cli.observe.nan.snapshot import Snapshot
from gradcheck_cli.tape import Sink
from gradcheck_cli.tracing.session import Session

NUMERIC_ERRORS = re.compile(
    r"Expected parameter .* of distribution|Expected value argument|elements of (input|target) should be between"
    r"|probability tensor contains|invalid multinomial|non-finite|singular|failed to converge|positive-definite"
    r"|contains (NaN|nan|inf)|is (nan|NaN|inf)\b|not (all )?finite|infs? or nans?|without overflow",
)


@dataclass(frozen=True)
class Fault:
    """A step that fails, the state before it, and how it is to be replayed to show it."""

    session: Session
    step: HeldStep
    before: Snapshot
    sinks: tuple[Sink, ...]
    error: str = ""
    notes: tuple[str, ...] = ()


def locate(session: Session, steps: Sequence[HeldStep], start: Snapshot) -> Fault | None:
    """Run a window again step by step, each looked at closely; None when nothing harmful shows.

    A step that a GradScaler skips is normal: it counts when it overflows in fp32 too, or when the loss scale has
    fallen below 1. Raises the user's error if it is not numeric. Several ranks do it together: a fault on one of them
    is one of the step, and has no sinks on those that saw nothing.
    """
    start.restore()
    before, ranks = session.snapshot(), session.ranks
    for step in steps:
        before.take()
        fault = examine(session, step, before)
        seen, harmful = ranks.any_of(fault is not None, fault is not None and not is_skip(session, fault))
        if not seen:
            continue
        shared = fault or Fault(session, step, before, ())
        if harmful:
            return shared
        fault = examine_in_fp32(session, shared)
        if ranks.any_of(fault is not None)[0]:
            return fault or shared
    return None


def examine(session: Session, step: HeldStep, before: Snapshot) -> Fault | None:
    """Run one step again; its bad values or its numeric error."""
    sinks = Sinks(session.workload.model, session.known_bad)
    error = ""
    with observed(sinks):
        try:
            session.run_again(step)
        except GradcheckError as failure:
            if not sinks.found and not is_numeric(failure):
                raise
            error = "" if sinks.found else failure.message.partition(": ")[2]  # a replay numbers its step 0
    return Fault(session, step, before, tuple(sinks.found), error) if sinks.found or error else None


def is_numeric(failure: GradcheckError) -> bool:
    """Whether an exception speaks of numbers that are not finite, in its own words, not in its traceback's source."""
    messages = [line for line in failure.details.splitlines() if not line.startswith(" ")]
    return bool(NUMERIC_ERRORS.search("\n".join([failure.message, *messages])))


def is_skip(session: Session, fault: Fault) -> bool:
    """Whether it is an overflow of scaled gradients that a GradScaler took care of."""
    return session.scaler.is_enabled() and not fault.error and all(sink.what == "gradient" for sink in fault.sinks)


def examine_in_fp32(session: Session, fault: Fault) -> Fault | None:
    """The same step without loss scale and autocast: an overflow there is a fault of the model's."""
    if session.scaler.get_scale() < 1:
        return Fault(session, fault.step, fault.before, fault.sinks, notes=("the loss scale has fallen below 1",))
    after = session.snapshot()
    fault.before.restore()
    found = examine(session.without_scaling(), fault.step, fault.before)
    if found:
        note = "the GradScaler skipped this step, but it is not finite in fp32 either: that is what was traced"
        return Fault(found.session, found.step, found.before, found.sinks, found.error, (note,))
    after.restore()
    return None
