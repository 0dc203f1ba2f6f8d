"""What an operation is called, and which operator of the forward pass it belongs to."""

from __future__ import annotations

from gradcheck_cli.tape import Operation, Tape


def short_name(name: str) -> str:
    """softmax for aten::_softmax, addcdiv for aten::_foreach_addcdiv_: what people call it."""
    return name.rpartition("::")[2].strip("_").removeprefix("foreach_")


def is_custom(operation: Operation) -> bool:
    """Whether it runs in the derivative of a custom `autograd.Function`, whose lines are the user's own.

    Nodes that torch generates end in a number (SqrtBackward0); those of Python functions do not (MyFunctionBackward).
    """
    node = operation.node
    return node.endswith("Backward") and "::" not in node and not operation.recomputed


def own_lines(operation: Operation) -> bool:
    """Whether its own line is the one to show, though an autograd node runs it."""
    return operation.recomputed or is_custom(operation)


def forward_of(tape: Tape, operation: Operation) -> Operation:
    """The operation of the forward pass whose derivative this is, also of a second derivative; else itself."""
    while operation.node and not own_lines(operation) and 0 <= operation.forward < operation.index:
        operation = tape.operations[operation.forward]
    return operation


def original_of(tape: Tape, operation: Operation) -> Operation:
    """What gradient checkpointing ran again: the same call in the first forward pass; else itself."""
    if not operation.recomputed:
        return operation
    alike = [other for other in tape.operations[: operation.index + 1] if call_site(other) == call_site(operation)]
    originals = [other for other in alike if not other.recomputed]
    again = [other for other in alike if other.recomputed]
    return originals[min(len(again), len(originals)) - 1] if originals else operation


def call_site(operation: Operation) -> tuple[object, ...]:
    """What two runs of the same call share."""
    frame = operation.frame
    where = (frame.location, frame.expression) if frame else None
    return operation.name, operation.overload, operation.module, operation.micro_batch, where
