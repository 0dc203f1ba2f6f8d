"""The way back from a bad value: parents of an operation by what it read, and which Inf is only a written constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gradcheck_cli.diagnose.nan.naming import short_name
from gradcheck_cli.tape import Operand, Operation, Tape

OUTSIDE = -1

MASK_READERS = ("softmax", "log_softmax", "safe_softmax", "logsumexp")
"""Operators for which -inf means "not this one"; attention and the normalisation of logits besides."""


@dataclass(frozen=True, order=True)
class Parent:
    """Who wrote a bad element: the index of an operation, or OUTSIDE and the source."""

    index: int
    source: str = ""


@dataclass(frozen=True)
class Parents:
    """Of the bad elements of one value: the writers of NaN, of computed Inf, and of Inf written as a constant."""

    nan: tuple[Parent, ...]
    computed: tuple[Parent, ...]
    constant: tuple[Parent, ...]

    @property
    def first(self) -> Parent | None:
        """The one to follow: the earliest NaN, else the earliest computed Inf."""
        return min(self.nan or self.computed, default=None)


@dataclass(frozen=True)
class Lineage:
    """Looks up parents on a tape. Only what ran before counts, so that every way back ends."""

    tape: Tape
    _constant: dict[tuple[int, bool], bool] = field(default_factory=dict, repr=False, compare=False)

    def of_operation(self, operation: Operation) -> Parents:
        """The parents of what an operation wrote."""
        return self.of_operands(operation.inputs, operation.index, reads_masks(self.tape, operation))

    def of_operands(self, operands: Sequence[Operand], before: int, masks: bool = False) -> Parents:
        """The parents of operands; `masks`: -inf from outside counts as written on purpose."""
        constant: list[Parent] = []
        computed: list[Parent] = []
        for parent, operand in inf_parents(operands, before):
            written = self._is_constant(parent, operand, masks)
            (constant if written else computed).append(parent)
        return Parents(nan_parents(operands, before), tuple(computed), tuple(constant))

    def _is_constant(self, parent: Parent, operand: Operand, masks: bool) -> bool:
        if parent.index == OUTSIDE:
            return is_mask_from_outside(parent, operand, masks)
        if (parent.index, masks) not in self._constant:
            self._judge(parent.index, masks)
        return self._constant[parent.index, masks]

    def _judge(self, index: int, masks: bool) -> None:
        """Whether its Inf, and that of all before it, goes back to written constants only."""
        for ancestor in sorted(self._ancestors(index)):
            operation = self.tape.operations[ancestor]
            infinite = inf_parents(operation.inputs, ancestor)
            if operation.state.nan or nan_parents(operation.inputs, ancestor):
                verdict = False
            elif infinite:
                verdict = all(self._is_constant(parent, operand, masks) for parent, operand in infinite)
            else:
                verdict = operation.writes_constant
            self._constant[ancestor, masks] = verdict

    def _ancestors(self, index: int) -> set[int]:
        found, waiting = {index}, [index]
        while waiting:
            operation = self.tape.operations[waiting.pop()]
            parents = {parent.index for parent, _ in inf_parents(operation.inputs, operation.index)}
            waiting += parents - found - {OUTSIDE}
            found |= parents - {OUTSIDE}
        return found


def nan_parents(operands: Sequence[Operand], before: int) -> tuple[Parent, ...]:
    """The writers of NaN elements."""
    return tuple(
        Parent(index, operand.source if index == OUTSIDE else "")
        for operand in operands
        for index in operand.nan_from
        if OUTSIDE <= index < before
    )


def inf_parents(operands: Sequence[Operand], before: int) -> list[tuple[Parent, Operand]]:
    """The writers of infinite elements, each with the operand in which they are."""
    return [
        (Parent(index, operand.source if index == OUTSIDE else ""), operand)
        for operand in operands
        for index in operand.inf_from
        if OUTSIDE <= index < before
    ]


def is_mask_from_outside(parent: Parent, operand: Operand, masks: bool) -> bool:
    """A tensor that was made before the step with Inf in it on purpose: known by where -inf is read as a mask."""
    if operand.state.positive_inf or operand.state.nan:
        return False
    return parent.source.startswith(("constant:", "batch:", "buffer:") if masks else "constant:")


def reads_masks(tape: Tape, operation: Operation) -> bool:
    """Whether -inf among its inputs means "not this one", and made a NaN."""
    name = short_name(operation.name)
    reads = name in MASK_READERS or name.startswith("scaled_dot_product") or normalises_logits(tape, operation)
    return operation.state.nan > 0 and reads


def normalises_logits(tape: Tape, operation: Operation) -> bool:
    """Whether it is logits - logsumexp(logits), as in a Categorical distribution."""
    if short_name(operation.name) != "sub" or len(operation.inputs) < 2:
        return False
    maker = operation.inputs[1].producer
    return 0 <= maker < operation.index and short_name(tape.operations[maker].name) == "logsumexp"
