"""What is known of an origin: the operation, what it read, what came before it and who used its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from gradcheck_cli.diagnose.nan.naming import forward_of, is_custom, original_of, short_name
from gradcheck_cli.diagnose.nan.neighbours import (
    CAST_OPERATIONS,
    makers_of,
    multiplied,
    producer_of,
    reached,
    same_node,
    same_value,
    was_masked,
)
from gradcheck_cli.tape import Frame, NanOrigin, Operand, Operation, Tape, TensorState

HALF = ("float16", "torch.float16")
LOW_PRECISION = (*HALF, "bfloat16", "torch.bfloat16")
SELECTIONS = ("where", "masked_fill", "masked_scatter", "nan_to_num")
"""Operators that use some of the elements of what they read, and give the others a gradient of 0."""
CLAMPS = ("clamp", "clamp_min", "clamp_max")
ELEMENTWISE = (
    "neg",
    "mul",
    "add",
    "sub",
    "rsub",
    "div",
    "exp",
    "to_copy",
    "pow",
    "square",
    "sqrt",
    "rsqrt",
    "abs",
    "log",
    "log1p",
)
SLOPED = tuple(name for name in ELEMENTWISE if name not in ("pow", "square", "abs"))
"""Those that do not make a gradient of 0 by themselves."""


@dataclass(frozen=True)
class Evidence:
    """An origin on its tape. `operation` is None for a value from outside, and where torch raised an error.

    `operation` is what made the value, which for a fault in a derivative is a part of it; `forward` is the operator
    of the forward pass in both cases, and what the user wrote.
    """

    tape: Tape
    origin: NanOrigin
    operation: Operation | None

    @classmethod
    def of(cls, tape: Tape, origin: NanOrigin) -> Evidence:
        """Look the origin up."""
        known = 0 <= origin.operation < len(tape.operations)
        return cls(tape, origin, tape.operations[origin.operation] if known else None)

    @property
    def kind(self) -> str:
        """nan or inf."""
        return self.origin.kind

    @property
    def phase(self) -> str:
        """As in `NanOrigin`; but a line of a hook, though it runs in backward, is like one of the forward pass."""
        return "forward" if self.hook else self.origin.phase

    @property
    def hook(self) -> bool:
        """Whether it is an operation on a gradient that the user wrote, and no derivative."""
        operation = self.operation
        if operation is None or self.origin.phase != "backward" or self.custom:
            return False
        return operation.forward < 0 and operation.frame is not None

    @property
    def source(self) -> str:
        """Where a value from outside came from, else ""."""
        return self.origin.source if self.operation is None else ""

    @property
    def refused(self) -> bool:
        """Whether torch raised an error at values that were all finite."""
        if self.operation is None:
            return not self.origin.source
        return self.origin.sink.startswith("error") and self.operation.state.finite

    @cached_property
    def forward(self) -> Operation | None:
        """The operator of the forward pass."""
        return original_of(self.tape, forward_of(self.tape, self.operation)) if self.operation else None

    @property
    def op(self) -> str:
        """Its name, short: softmax for aten::_softmax."""
        return short_name(self.forward.name if self.forward else self.origin.op)

    @property
    def derivative(self) -> bool:
        """Whether the fault is in the derivative."""
        return self.operation is not None and self.forward is not self.operation and self.phase == "backward"

    @property
    def custom(self) -> bool:
        """Whether the fault is in the derivative of a custom function."""
        return self.operation is not None and is_custom(self.operation)

    @property
    def frame(self) -> Frame | None:
        """The line to show."""
        return self.origin.frame or (self.forward.frame if self.forward else None)

    @property
    def text(self) -> str:
        """The expression that was running, else the line."""
        return (self.frame.expression or self.frame.code) if self.frame else ""

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """What the operator of the forward pass read."""
        return self.forward.inputs if self.forward else ()

    def state(self, argument: str | int) -> TensorState | None:
        """Of an argument by its name or position; of a list of tensors the one with the most bad or zero elements."""
        named = self.operands(argument)
        return max((o.state for o in named), key=lambda s: (s.nan + s.inf, s.zeros), default=None)

    def operands(self, argument: str | int) -> tuple[Operand, ...]:
        """The operands of that name or position."""
        if isinstance(argument, int):
            return self.inputs[argument : argument + 1]
        return tuple(operand for operand in self.inputs if operand.argument == argument)

    @property
    def input(self) -> TensorState:
        """The first argument; without elements where there is none."""
        return self.state(0) or TensorState((), "", 0)

    @property
    def output(self) -> TensorState:
        """The result; where there are several, one that is as the origin says."""
        outputs = self.operation.outputs if self.operation else ()
        alike = [state for state in outputs if state.kind == self.kind]
        return next(iter((*alike, *outputs)), TensorState((), "", 0))

    @property
    def dtype(self) -> str:
        """Of the result, without "torch."."""
        return self.output.dtype.removeprefix("torch.")

    @property
    def half(self) -> bool:
        """Whether the result is float16, which ends at 65504."""
        return self.output.dtype in HALF

    @property
    def low_precision(self) -> bool:
        """Whether the result is float16 or bfloat16."""
        return self.output.dtype in LOW_PRECISION

    def constant(self, name: str) -> float | None:
        """A number among the other arguments of the forward operator."""
        values = dict(self.forward.constants) if self.forward else {}
        try:
            return float(values[name])
        except (KeyError, ValueError):
            return None

    @property
    def largest_constant(self) -> float:
        """The largest magnitude among all number arguments, 0 without."""
        names = dict(self.forward.constants) if self.forward else {}
        numbers = [self.constant(name) for name in names]
        return max((abs(number) for number in numbers if number is not None), default=0.0)

    @cached_property
    def gradient(self) -> TensorState | None:
        """What came in to the derivative from the one after it."""
        waiting = [self.operation] if self.operation and self.derivative else []
        seen: set[int] = set()
        while waiting:
            operation = waiting.pop()
            for operand in operation.inputs:
                producer = producer_of(self.tape, operand, operation)
                if producer is None or producer.index in seen or producer.phase != "backward":
                    continue
                if not same_node(producer, operation):
                    return operand.state
                seen.add(producer.index)
                waiting.append(producer)
        return None

    def makers(self, argument: str | int = 0) -> Iterator[Operation]:
        """The operations that wrote an argument, seen through casts and copies."""
        waiting = [(operand, self.forward) for operand in self.operands(argument) if self.forward]
        while waiting:
            operand, reader = waiting.pop()
            maker = producer_of(self.tape, operand, reader)
            if maker is None:
                continue
            yield maker
            if short_name(maker.name) in CAST_OPERATIONS:
                waiting += [(operand, maker) for operand in maker.inputs[-1:]]

    def made_by(self, *names: str, argument: str | int = 0) -> Operation | None:
        """The operation of one of these names that wrote the argument."""
        return next((maker for maker in self.makers(argument) if short_name(maker.name) in names), None)

    def makers_of(self, operation: Operation | None) -> Iterator[Operation]:
        """The operations that wrote what another one read."""
        return makers_of(self.tape, operation) if operation else iter(())

    def reached(self, names: Collection[str], through: Collection[str] = ()) -> Operation | None:
        """The first operation of these names that the result gets to, through these operators and casts."""
        return reached(self.tape, self.forward, names, through) if self.forward else None

    @cached_property
    def selection(self) -> Operation | None:
        """What takes only some elements of the result: where, masked_fill, clamp, or a product with 0 and 1."""
        return self.reached(SELECTIONS, SLOPED) or self.reached(CLAMPS) or self.mask_product

    @cached_property
    def mask_product(self) -> Operation | None:
        """The product of the result with a mask of 0 and 1, or with what was multiplied by one."""
        return self.multiplied(lambda operand: was_masked(self.tape, operand), ELEMENTWISE)

    def multiplied_by_input(self, *through: str) -> Operation | None:
        """The product of the result with the first argument itself, as in p * log(p)."""
        own = self.inputs[0] if self.inputs else None
        return self.multiplied(lambda operand: own is not None and same_value(operand, own), through)

    def multiplied(self, wanted: Callable[[Operand], bool], through: Collection[str]) -> Operation | None:
        """The first product of the result with such a factor."""
        return multiplied(self.tape, self.forward, wanted, through) if self.forward else None

    @property
    def behind_where(self) -> bool:
        """Whether the bad elements are not used in the forward pass: their gradient is 0, and 0 · inf is NaN."""
        in_derivative = self.derivative and self.kind == "nan"
        kept_for_it = not self.derivative and self.kind == "inf" and self.origin.sink.startswith("gradient")
        return (in_derivative or kept_for_it) and self.selection is not None
