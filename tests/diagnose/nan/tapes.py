"""Hand-written tapes: say what an operation read and made; who wrote what was bad follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.records import Location
from gradcheck_cli.tape import Frame, NanOrigin, Operand, Operation, Sink, Tape, TensorState

WRITTEN = {"NaN": {"nan": 1}, "inf": {"positive_inf": 1}, "-inf": {"negative_inf": 1}}


def state(what: str = "", shape: tuple[int, ...] = (4,), dtype: str = "float32", **counts: Any) -> TensorState:
    """Finite by default, within [-1, 1]; `what` is NaN, inf or -inf for one such element."""
    numel = 1
    for length in shape:
        numel *= length
    return TensorState(shape, dtype, numel, **{"low": -1.0, "high": 1.0, **WRITTEN.get(what, {}), **counts})


@dataclass(frozen=True)
class Value:
    """A tensor on the tape: its state, and the operation that wrote it or its source."""

    state: TensorState
    writer: int = -1
    source: str = ""


def outside(source: str, what: str = "", **counts: Any) -> Value:
    """A tensor from outside the step."""
    return Value(state(what, **counts), source=source)


@dataclass
class TapeBuilder:
    """Collects operations in order. Arguments are called self, other, third unless `names` says otherwise."""

    operations: list[Operation] = field(default_factory=list)

    def run(
        self, name: str, *inputs: Value, out: TensorState | None = None, names: str = "", line: str = "", **fields: Any
    ) -> Value:
        """Append an operation of the forward pass and give its result."""
        index, out = len(self.operations), out or state()
        arguments = (names or "self other third fourth").split()
        operands = tuple(operand(a, v, not out.finite) for a, v in zip(arguments, inputs, strict=False))
        fields = {"phase": "forward", "micro_batch": 0, "frame": frame(index, line), **fields}
        outputs = fields.pop("outputs", (out,))
        self.operations.append(Operation(index, f"aten::{name}", "default", inputs=operands, outputs=outputs, **fields))
        return Value(out, index)

    def derive(self, forward: Value, name: str, *inputs: Value, out: TensorState, node: str = "") -> Value:
        """Append an operation of the derivative of another."""
        node = node or f"{self.operations[forward.writer].name[6:].title()}Backward0"
        return self.run(name, *inputs, out=out, phase="backward", node=node, forward=forward.writer)

    def sink(self, value: Value, what: str = "loss", name: str = "") -> tuple[Tape, Sink]:
        """The tape and its sink."""
        read = operand("", value, True)
        sink = Sink(what, name, value.state, read.nan_from, read.inf_from, value.source)
        return Tape(3, tuple(self.operations), (sink,)), sink

    def origin(self, value: Value, what: str = "loss", name: str = "") -> NanOrigin:
        """What is found from this sink back."""
        return find_origin(*self.sink(value, what, name))

    def explained(self, value: Value, what: str = "loss", name: str = "") -> NanOrigin:
        """The same with its cause."""
        tape, sink = self.sink(value, what, name)
        return explain(tape, find_origin(tape, sink))


def operand(argument: str, value: Value, matters: bool) -> Operand:
    """The value as it is read; `matters`: what is bad in it can have made a bad result."""
    nan_from = (value.writer,) if matters and value.state.nan else ()
    inf_from = (value.writer,) if matters and value.state.inf else ()
    return Operand(argument, value.state, value.writer, value.source, nan_from, inf_from)


def frame(number: int, line: str) -> Frame:
    return Frame(Location("model.py", number + 10), "Model.forward", line, line)
