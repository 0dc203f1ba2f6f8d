"""From a bad value back to the operation whose inputs were finite, or to what came from outside the step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gradcheck_cli.diagnose.nan.lineage import OUTSIDE, Lineage, Parent
from gradcheck_cli.diagnose.nan.naming import forward_of, is_custom, original_of, short_name
from gradcheck_cli.tape import NanOrigin, Operand, Operation, Sink, Tape, TensorState

PHASES_OUTSIDE = {"parameter": "parameter", "buffer": "buffer", "gradient": "backward", "state": "optimizer"}
MOVES = ("index", "index_select", "masked_select")
BOOKKEEPING = ("detach", "alias", "clone", "lift_fresh", "view", "expand", "t", "transpose")
LONGEST_PATH = 8


@dataclass(frozen=True)
class Trail:
    """The way from an origin to a sink: operations in the order of execution, or a source and those after it."""

    operations: tuple[Operation, ...]
    source: str = ""
    constants: tuple[Parent, ...] = ()


def find_origin(tape: Tape, sink: Sink) -> NanOrigin:
    """Where the bad elements of a sink came from: NaN before Inf, the earliest first, to finite inputs.

    Inf written as a constant is a contributor, and the operation that made a NaN of it the origin; where it reached
    the sink as it was, the origin is the operation that mixed it with other values. `spread`, `verified`, `samples`,
    `cause`, `explanation` and `fix` are left empty.
    """
    trail = follow(tape, sink)
    origin = trail.operations[0] if trail.operations and not trail.source else None
    found = describe_operation(tape, origin, trail, sink) if origin else describe_source(tape, sink, trail)
    return NanOrigin(
        **found,
        step=tape.step,
        sink=name_sink(sink),
        sink_kind=sink.state.kind,
        path=name_path(tape, trail, sink),
        contributors=tuple(dict.fromkeys(name_constant(tape, parent) for parent in trail.constants)),
    )


def follow(tape: Tape, sink: Sink) -> Trail:
    """Back from the sink, one operation at a time."""
    lineage = Lineage(tape)
    value = Operand(sink.what, sink.state, source=sink.source, nan_from=sink.nan_from, inf_from=sink.inf_from)
    parents = lineage.of_operands([value], len(tape.operations))
    if parents.first is None and parents.constant:
        return follow_constant(lineage, min(parents.constant))
    trail: list[Operation] = []
    while parents.first is not None:
        if parents.first.index == OUTSIDE:
            return Trail(tuple(reversed(trail)), parents.first.source or "constant:")
        trail.append(tape.operations[parents.first.index])
        parents = lineage.of_operation(trail[-1])
        if parents.first is None and (hidden := before_clipping(tape, trail[-1])):
            trail.append(hidden)
            parents = lineage.of_operation(hidden)
    if not trail:
        return Trail((), sink.source)
    constants = constant_leaves(lineage, parents.constant)
    return Trail(tuple(reversed(drop_nan_constant(trail))), "", constants)


def follow_constant(lineage: Lineage, parent: Parent) -> Trail:
    """An Inf that reached the sink as it was written: from the operation that mixed it with other values on."""
    trail: list[Operation] = []
    while parent.index != OUTSIDE:
        trail.append(lineage.tape.operations[parent.index])
        above = lineage.of_operation(trail[-1]).constant
        if not above:
            break
        parent = min(above)
    trail.reverse()
    return Trail(tuple(trail[first_mixing(trail) :]), "", (parent,)) if trail else Trail((), parent.source)


def first_mixing(trail: list[Operation]) -> int:
    """The index of the first reduction of bad elements with good ones, else of the last operation."""
    for index, operation in enumerate(trail):
        bad = [operand.state for operand in operation.inputs if operand.state.inf]
        reduces = any(operation.outputs and operation.outputs[0].numel < state.numel for state in bad)
        if reduces and short_name(operation.name) not in MOVES:
            return index
    return len(trail) - 1


def constant_leaves(lineage: Lineage, parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
    """The operations that wrote the constants, or the sources."""
    leaves: dict[Parent, None] = {}
    seen, waiting = set(parents), list(parents)
    while waiting:
        parent = waiting.pop()
        above = lineage.of_operation(lineage.tape.operations[parent.index]) if parent.index != OUTSIDE else None
        further = (*above.constant, *above.computed) if above else ()
        if not further:
            leaves[parent] = None
        waiting += set(further) - seen
        seen |= set(further)
    return tuple(sorted(leaves))


def before_clipping(tape: Tape, operation: Operation) -> Operation | None:
    """The first operation of the same clipping that met an Inf: 1 / Inf = 0 hides it from what comes after."""
    if operation.phase != "clip":
        return None
    clipping: list[Operation] = []
    for other in reversed(tape.operations[: operation.index]):
        if other.phase != "clip":
            break
        clipping.append(other)
    return next((other for other in reversed(clipping) if not other.state.finite), None)


def drop_nan_constant(trail: list[Operation]) -> list[Operation]:
    """Without a NaN written as a number, where what read it is on the same line (`where(.., nan)`)."""
    if len(trail) > 1 and trail[-1].writes_constant and short_name(trail[-1].name) == "scalar_tensor":
        return trail[:-1] if trail[-1].frame == trail[-2].frame else trail
    return trail


def describe_operation(tape: Tape, origin: Operation, trail: Trail, sink: Sink) -> dict[str, Any]:
    """The fields of an origin on the tape."""
    first = original_of(tape, origin)
    operation = origin if first.state.finite else first
    forward = original_of(tape, forward_of(tape, operation))
    derivative = forward_of(tape, operation) is not operation or is_custom(operation)
    return {
        "micro_batch": operation.micro_batch,
        "phase": first.phase,
        "kind": kind_passed_on(trail, sink, derivative),
        "op": "" if is_check(operation) else forward.name,
        "operation": operation.index,
        "autograd_node": operation.node if derivative else "",
        "module": forward.module,
        "module_type": forward.module_type,
        "frame": forward.frame or operation.frame,
    }


def kind_passed_on(trail: Trail, sink: Sink, derivative: bool) -> str:
    """What went on from it towards the sink; of a derivative what left its node (0 · inf inside it is NaN).

    What raised in place of making something is finite.
    """
    made = trail.operations[0]
    length = 1
    if derivative:
        _, run = next(groupby(trail.operations, key=lambda operation: (operation.node, operation.forward)))
        length = len(list(run))
        made = trail.operations[length - 1]
    reader = trail.operations[length].inputs if len(trail.operations) > length else (sink,)
    by_reader = any(made.index in value.nan_from for value in reader), any(made.index in v.inf_from for v in reader)
    if made.state.finite:
        return "finite"
    return "nan" if by_reader[0] else "inf" if by_reader[1] else made.state.kind


def is_check(operation: Operation) -> bool:
    """Whether a condition was read, upon which library code raised."""
    return operation.name == "aten::_local_scalar_dense" and operation.state.finite


def describe_source(tape: Tape, sink: Sink, trail: Trail) -> dict[str, Any]:
    """The fields of a value that came from outside the step, with the line that first read it."""
    reader = first_reader(tape, trail.source)
    state = read_state(reader, trail.source) or sink.state
    return {
        "micro_batch": reader.micro_batch if reader else sink.micro_batch,
        "phase": PHASES_OUTSIDE.get(trail.source.partition(":")[0], "data" if trail.source else "forward"),
        "kind": state.kind,
        "op": "",
        "module": reader.module if reader else "",
        "module_type": reader.module_type if reader else "",
        "frame": reader.frame if reader else None,
        "source": trail.source,
    }


def first_reader(tape: Tape, source: str) -> Operation | None:
    """The first operation that read a bad value from there."""
    return next((operation for operation in tape.operations if source and read_state(operation, source)), None)


def read_state(operation: Operation | None, source: str) -> TensorState | None:
    """The bad value from a source that an operation read."""
    operands = operation.inputs if operation else ()
    return next((o.state for o in operands if o.source == source and not o.state.finite), None)


def name_sink(sink: Sink) -> str:
    """In words: "loss", "gradient of fc.weight"; of an exception not its message."""
    if sink.what == "error":
        return "error"
    if sink.what == "gradient":
        return f"gradient of {sink.name}"
    return sink.what if sink.what == "loss" or not sink.name else f"{sink.what} {sink.name}"


def name_path(tape: Tape, trail: Trail, sink: Sink) -> tuple[str, ...]:
    """The operators from the origin to the sink, without bookkeeping and repeats, short."""
    names = [] if not trail.source else [trail.source]
    for operation in trail.operations:
        name = short_name(forward_of(tape, operation).name)
        if operation is trail.operations[0] or name not in BOOKKEEPING:
            names.append(name)
    once = [name for name, _ in groupby([*names, name_sink(sink)])]
    head, tail = LONGEST_PATH // 2, LONGEST_PATH // 2 - 1
    return tuple(once if len(once) <= LONGEST_PATH else [*once[:head], "…", *once[-tail:]])


def name_constant(tape: Tape, parent: Parent) -> str:
    """In words: "-inf written by masked_fill at model.py:12"."""
    if parent.index == OUTSIDE:
        source = parent.source if parent.source.partition(":")[2] else "a tensor from outside the step"
        return f"infinite elements of {source}"
    operation = tape.operations[parent.index]
    value = "-inf" if operation.state.negative_inf else "inf"
    frame = operation.frame
    where = f" at {frame.location.file}:{frame.location.line}" if frame else ""
    return f"{value} written by {short_name(operation.name)}{where}"
