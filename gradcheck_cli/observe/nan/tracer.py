"""Replay a step under a dispatch mode: every operation, what it read, what it made, and who wrote what was bad."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.inputs import B
from gradcheck_cli.observe.nan.calls import (
    ADDING_VIEWS,
    Argument,
    arguments_of,
    bad_numbers,
    is_view,
    name_of,
    outputs_of,
    plain_constants,
)
from gradcheck_cli.observe.nan.frames import current_frame, is_recomputing
from gradcheck_cli.observe.nan.lineage import Suspect, Writers, writers_behind
from gradcheck_cli.observe.nan.numbers import Numbers
from gradcheck_cli.observe.nan.provenance import OUTSIDE, Provenance
from gradcheck_cli.observe.nan.sequence import Sequencer
from gradcheck_cli.observe.nan.sinks import Sinks
from gradcheck_cli.observe.nan.sites import Sites
from gradcheck_cli.observe.nan.sources import Sources
from gradcheck_cli.observe.nan.states import can_be_bad, countable, elements, state_of
from gradcheck_cli.tape import Operand, Operation, Sink, Tape, TensorState


class Tracer(TorchDispatchMode):
    """Traces one step.

    `patches` makes the bad results of operations finite, by index, `derivatives` those of the autograd nodes of
    operations: they give the value that replaces what is bad.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        patches: Mapping[int, float] | None = None,
        derivatives: Mapping[int, float] | None = None,
        known_bad: Collection[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._patches, self._derivatives = patches or {}, derivatives or {}
        self._operations: list[Operation] = []
        self._provenance = Provenance()
        self._sources = Sources(model, optimizers)
        self._sites = Sites({id(module): name for name, module in model.named_modules()})
        self._sinks = Sinks(model, known_bad, self._provenance, self._sources, self._sites)
        self._sequencer = Sequencer()
        self._numbers = Numbers()
        self._states: dict[tuple[Any, ...], TensorState] = {}

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace what runs inside the context, compiled modules in eager mode."""
        with ExitStack() as stack:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(self._sites.followed())
            stack.enter_context(observed(self._sinks))
            stack.enter_context(self._sinks.seeing_whole_gradients())
            stack.enter_context(self)
            yield

    def inspect(self, batches: Iterable[B]) -> Iterator[B]:
        """The same batches; their tensors get names."""
        for batch in batches:
            self._sites.begin_micro_batch()
            self._sources.add_batch(batch.data)
            yield batch

    def tape(self, step: int) -> Tape:
        """What was traced so far."""
        return Tape(step, tuple(self._operations), tuple(self._sinks.found))

    def note_error(self, message: str) -> None:
        """The step raised instead of going on: the last operation that read something bad, or the last at all."""
        with_bad = [op for op in self._operations if any(not operand.state.finite for operand in op.inputs)]
        last = next(reversed(with_bad or self._operations), None)
        if last is None:
            self._sinks.add(Sink("error", message, TensorState((), "", 0), micro_batch=max(self._sites.micro_batch, 0)))
            return
        state = next((operand.state for operand in last.inputs if not operand.state.finite), last.state)
        self._sinks.add(Sink("error", message, state, (last.index,), (), micro_batch=last.micro_batch))

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and note it; of views only those whose derivative computes something, without values."""
        kwargs = kwargs or {}
        self._sequencer.note_call(len(self._operations), args, name_of(func).endswith("_"))
        if is_view(func) or func.namespace == "profiler":
            if name_of(func) in ADDING_VIEWS and torch.is_grad_enabled() and args[0].requires_grad:
                self._operations.append(self._describe(func, args, kwargs))
            return func(*args, **kwargs)
        arguments = list(arguments_of(func, args, kwargs))
        read = [argument for argument in arguments if argument.is_read]
        operands = [self._operand(argument) for argument in read]
        suspects = {i: self._suspect(read[i]) for i, operand in enumerate(operands) if not operand.state.finite}
        operands += self._numbers.operands(bad_numbers(args, kwargs))
        operation = self._describe(func, args, kwargs)
        self._operations.append(operation)
        try:
            result = func(*args, **kwargs)
        except Exception:
            writers = {i: suspect.writers() for i, suspect in suspects.items()}
            self._complete(operation, operands, writers, ())
            raise
        outputs = outputs_of(result, arguments)
        self._patch(operation, outputs)
        found = writers_behind(func, args, kwargs, list(suspects.values()), outputs) if suspects else []
        states = [self._written(output, operation.index) for output in outputs]
        if isinstance(result, (int, float)):
            states += self._numbers.note(result, operation.index)
        self._complete(operation, operands, dict(zip(suspects, found, strict=True)), states)
        return result

    def _describe(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
        """What is known before the call."""
        recomputed = self._sites.in_backward and is_recomputing()
        frame = current_frame(self._sites.in_backward)
        is_hook = frame is not None and self._sequencer.node[-1:].isdigit()  # it runs within a node of torch's
        forward = self._sequencer.forward_operation() if self._sites.in_backward and not is_hook else OUTSIDE
        origin = self._operations[forward] if 0 <= forward < len(self._operations) else None
        module, module_type = self._sites.module
        return Operation(
            index=len(self._operations),
            name=func._schema.name,
            overload=func._overloadname,
            phase="forward" if recomputed else self._sites.phase,
            micro_batch=max(self._sites.micro_batch, 0),
            inputs=(),
            outputs=(),
            module=origin.module if origin and not recomputed else module,
            module_type=origin.module_type if origin and not recomputed else module_type,
            node="" if recomputed else self._sequencer.node,
            forward=OUTSIDE if recomputed or origin is None else forward,
            frame=frame or (origin.frame if origin else None),
            recomputed=recomputed,
            constants=plain_constants(func, args, kwargs),
            writes_constant=bool(bad_numbers(args, kwargs)) and not self._numbers.operands(bad_numbers(args, kwargs)),
        )

    def _complete(
        self,
        operation: Operation,
        operands: Sequence[Operand],
        writers: Mapping[int, Writers],
        outputs: Sequence[TensorState],
    ) -> None:
        """Put the call's outcome on the tape."""
        inputs = [
            replace(operand, nan_from=writers[i][0], inf_from=writers[i][1]) if i in writers else operand
            for i, operand in enumerate(operands)
        ]
        self._operations[operation.index] = replace(operation, inputs=tuple(inputs), outputs=tuple(outputs))

    def _operand(self, argument: Argument) -> Operand:
        producer = self._provenance.producer(argument.tensor)
        source = self._sources.name(argument.tensor) if producer == OUTSIDE else ""
        return Operand(argument.name, self._state(argument.tensor), producer, source)

    def _suspect(self, argument: Argument) -> Suspect:
        return Suspect.of(argument.tensor, self._provenance.owners(argument.tensor))

    def _patch(self, operation: Operation, outputs: Sequence[Tensor]) -> None:
        value = self._patches.get(operation.index, self._derivatives.get(operation.forward))
        if value is not None:
            for output in filter(can_be_bad, outputs):
                values = elements(output)
                values.copy_(countable(values).nan_to_num(value, value, -value))

    def _written(self, tensor: Tensor, index: int) -> TensorState:
        """Note a write, and its state."""
        self._provenance.note_write(tensor, index, None)
        state = self._state(tensor)
        if not state.finite:
            self._provenance.note_write(tensor, index, ~countable(elements(tensor)).isfinite())
        return state

    def _state(self, tensor: Tensor) -> TensorState:
        """Its state; looked at once for every write."""
        values = elements(tensor)
        generation = self._provenance.entry(tensor).generation
        where = (values.untyped_storage()._cdata, generation, values.storage_offset(), tensor.dtype)
        key = (*where, values.shape, values.stride())
        if key not in self._states:
            self._states[key] = state_of(tensor)
        return self._states[key]
