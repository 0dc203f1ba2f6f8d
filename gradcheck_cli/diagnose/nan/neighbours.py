"""What stands before and after an operation on the tape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.tape import Operand, Operation, Tape, TensorState

CAST_OPERATIONS = ("to_copy", "clone", "copy")
FARTHEST = 4
WIDEST = 8


def producer_of(tape: Tape, operand: Operand, reader: Operation) -> Operation | None:
    """The operation that wrote what `reader` read."""
    return tape.operations[operand.producer] if 0 <= operand.producer < reader.index else None


def makers_of(tape: Tape, operation: Operation) -> Iterator[Operation]:
    """The operations that wrote what an operation read."""
    for operand in operation.inputs:
        maker = producer_of(tape, operand, operation)
        if maker is not None:
            yield maker


def consumers_of(tape: Tape, operation: Operation) -> Iterator[Operation]:
    """The operations of the forward pass that read an operation's result."""
    for later in tape.operations[operation.index + 1 :]:
        if not later.node and any(operand.producer == operation.index for operand in later.inputs):
            yield later


def layers_after(tape: Tape, operation: Operation, through: Collection[str]) -> Iterator[list[Operation]]:
    """The consumers, then those behind these operators and casts, and so on a few steps."""
    waiting = [operation]
    for _ in range(FARTHEST):
        following = [consumer for other in waiting for consumer in consumers_of(tape, other)]
        yield following
        names = (*through, *CAST_OPERATIONS)
        waiting = [consumer for consumer in following if short_name(consumer.name) in names][:WIDEST]


def reached(tape: Tape, operation: Operation, names: Collection[str], through: Collection[str]) -> Operation | None:
    """The first operation of these names that the result gets to."""
    layers = layers_after(tape, operation, through)
    return next((other for layer in layers for other in layer if short_name(other.name) in names), None)


def multiplied(
    tape: Tape, operation: Operation, wanted: Callable[[Operand], bool], through: Collection[str]
) -> Operation | None:
    """The first product of the result, or of what was made of it, with such a factor."""
    seen = {operation.index}
    for layer in layers_after(tape, operation, through):
        for product in layer:
            factors = [operand for operand in product.inputs if operand.producer not in seen]
            if short_name(product.name) == "mul" and any(wanted(factor) for factor in factors):
                return product
        seen |= {other.index for other in layer}
    return None


def was_masked(tape: Tape, operand: Operand, steps: int = FARTHEST) -> bool:
    """Whether it is a mask of 0 and 1, or was multiplied by one."""
    if is_mask(operand.state):
        return True
    if not steps or not operand.state.zeros or not 0 <= operand.producer < len(tape.operations):
        return False
    maker = tape.operations[operand.producer]
    if short_name(maker.name) not in ("mul", "square", "pow", "abs", *CAST_OPERATIONS):
        return False
    return any(was_masked(tape, o, steps - 1) for o in maker.inputs if o.producer < maker.index)


def same_node(one: Operation, other: Operation) -> bool:
    """Whether two operations belong to one derivative."""
    return one.node == other.node and one.forward == other.forward


def same_value(one: Operand, other: Operand) -> bool:
    """Whether two operands are the same tensor."""
    return one.producer == other.producer and one.source == other.source and (one.producer >= 0 or bool(one.source))


def is_mask(state: TensorState) -> bool:
    """Whether it holds 0 and 1 only, and a 0 at that."""
    return state.zeros > 0 and state.zeros + state.ones == state.numel and not state.negatives
