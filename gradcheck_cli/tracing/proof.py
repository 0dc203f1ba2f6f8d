"""Origins, each proved by replaying the step with it repaired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch.optim import Optimizer

from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.tape import NanOrigin, Operation, Tape
from gradcheck_cli.tracing.fault import Fault
from gradcheck_cli.tracing.session import NO_REPAIRS, Repairs, Session, trace

REPLACEMENTS = (1.0, 0.0)  # a logarithm or a quotient of 0 would be the next fault
MOST_REPAIRS = 16


@dataclass(frozen=True)
class Trial:
    """A replay with an origin repaired in one way."""

    repairs: Repairs
    tape: Tape


def find_origins(fault: Fault, tape: Tape) -> list[NanOrigin]:
    """Every independent origin on the tape: repair one, look what is left, until all is finite or nothing changes."""
    origins: list[NanOrigin] = []
    repairs, rest = NO_REPAIRS, tape
    for _ in range(MOST_REPAIRS):
        if not rest.sinks:
            break
        origin = find_origin(rest, rest.sinks[0])
        completed = complete(origin, fault, tape)
        is_new = not any(is_same_line(completed, other) for other in origins)
        if is_repaired(origin, repairs) or (origins and is_new and not is_independent(origin, tape)):
            break
        if is_new:
            origins.append(explain(rest, completed))
        trial = best_trial(list(trials(fault, repairs, origin, rest)), tape)
        repairs, rest = trial.repairs, trial.tape
    return [replace(origin, verified=not rest.sinks) for origin in origins]


def trials(fault: Fault, repairs: Repairs, origin: NanOrigin, tape: Tape) -> Iterator[Trial]:
    """Replays with the origin's bad elements replaced by different finite numbers; ends with the first that helps."""
    for value in REPLACEMENTS:
        more = with_origin(repairs, origin, tape, value)
        trial = Trial(more, without_skips(trace(fault.session, fault.step, fault.before, more), fault))
        yield trial
        if not trial.tape.sinks:
            return


def without_skips(tape: Tape, fault: Fault) -> Tape:
    """Without the gradients that overflow only because of a loss scale: once the loss is finite, that is normal."""
    if fault.session.scaler.is_enabled() and any(sink.what != "gradient" for sink in fault.sinks):
        return replace(tape, sinks=tuple(sink for sink in tape.sinks if sink.what != "gradient"))
    return tape


def with_origin(repairs: Repairs, origin: NanOrigin, tape: Tape, value: float) -> Repairs:
    """The repairs with one more. The derivative of a repaired result is repaired too: it would divide by the same 0."""
    if origin.operation < 0:
        return replace(repairs, sources={**repairs.sources, origin.source: value})
    found = alike(tape.operations[origin.operation], tape)
    nodes = (operation.forward if operation.forward >= 0 else operation.index for operation in found)
    return replace(
        repairs,
        operations={**repairs.operations, **{operation.index: value for operation in found}},
        derivatives={**repairs.derivatives, **dict.fromkeys(nodes, value)},
    )


def alike(operation: Operation, tape: Tape) -> list[Operation]:
    """It, and what the same call made bad of finite values in other layers and micro-batches: one repair does for all.

    Each would cost a replay of its own.
    """
    place = operation.frame and operation.frame.location
    others = (one for one in tape.operations if place and one.frame and one.frame.location == place)
    return [operation, *(one for one in others if one.name == operation.name and makes_bad(one))]


def makes_bad(operation: Operation) -> bool:
    """Whether it made non-finite values of finite ones."""
    return not operation.state.finite and all(operand.state.finite for operand in operation.inputs)


def best_trial(trials: list[Trial], tape: Tape) -> Trial:
    """One after which all is finite; else one whose next origin was there from the start; else the first."""
    for trial in trials:
        if not trial.tape.sinks:
            return trial
    for trial in trials:
        if is_independent(find_origin(trial.tape, trial.tape.sinks[0]), tape):
            return trial
    return trials[0]


def is_repaired(origin: NanOrigin, repairs: Repairs) -> bool:
    """Whether a repair of it was tried already."""
    return origin.operation in repairs.operations or (origin.operation < 0 and origin.source in repairs.sources)


def is_same_line(one: NanOrigin, other: NanOrigin) -> bool:
    """Whether two origins are one to the user: a line may divide by a root, whose slope is infinite, too."""
    if one.frame is None or other.frame is None:
        return (one.phase, one.op, one.source, one.frame) == (other.phase, other.op, other.source, other.frame)
    return (one.source, one.frame.location) == (other.source, other.frame.location)


def is_independent(origin: NanOrigin, tape: Tape) -> bool:
    """Whether it was an origin on the unrepaired tape too, not one that a replaced number made."""
    if origin.operation < 0:
        return True
    if origin.operation >= len(tape.operations):
        return True  # the unrepaired step raised before it came to this
    return makes_bad(tape.operations[origin.operation])


def owner_of(origin: NanOrigin, session: Session) -> Optimizer:
    """The optimizer that holds the parameter that the origin spoiled; the one that is driven where none does."""
    named = dict(session.workload.model.named_parameters())
    spoiled = named.get(origin.sink.removeprefix("parameter "))
    holds = (one for one in session.optimizers for group in one.param_groups for p in group["params"] if p is spoiled)
    return next(holds, session.workload.optimizer)


def complete(origin: NanOrigin, fault: Fault, tape: Tape) -> NanOrigin:
    """With the line on which a parameter, buffer or optimizer was made, and how far the bad values spread."""
    workload, births = fault.session.workload, fault.session.births
    kind, _, name = origin.source.partition(":")
    frame = origin.frame
    if origin.operation < 0 and kind in ("parameter", "buffer"):
        frame = births.of_tensor(workload.model, name) or frame
    if origin.phase == "optimizer" and not (frame and frame.function.endswith(".step")):  # a step of the user's own
        frame = births.of_optimizer(owner_of(origin, fault.session)) or frame
    reached = "parameter" if origin.phase == "optimizer" else "gradient"
    bad = {sink.name for sink in tape.sinks if sink.what == reached}
    total = sum(parameter.requires_grad for parameter in workload.model.parameters())
    return replace(origin, frame=frame, spread=(len(bad), total))
