"""The second run of a script, in a process of its own: traces the steps of which one was not finite."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from gradcheck_cli.drive import script as scripts
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.inputs import floating_tensors
from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.observe.nan.script_tracer import LoadedBatch, Relay, ScriptTracer
from gradcheck_cli.observe.nan.sinks import bad_from_the_start
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.search import Search, bundle, living_modules
from gradcheck_cli.observe.session import Session
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.tape import Tape
from gradcheck_cli.targets import Script
from gradcheck_cli.tracing.fault import is_numeric
from gradcheck_cli.tracing.script_watch import Span
from gradcheck_cli.tracing.session import NO_REPAIRS, Repairs

MORE_STEPS = 20
CHECKING = 8
"""As many operations may lie between a check of a loss and the exit."""
QUIET = RecorderSettings(probe_every=0, keep_going=True)


@dataclass(frozen=True)
class Request:
    """What is to be run, from which random state, and which of its steps are to be traced.

    So many `more` steps are, too, while all is finite. `repairs` are made in each.
    """

    script: Script
    random: RandomState
    span: Span
    more: int = MORE_STEPS
    repairs: Repairs = NO_REPAIRS


@dataclass(frozen=True)
class Answer:
    """The tape of the first step that was not finite; without one, `failure` may say why.

    `steps` were traced. `error` is what was raised in place of a NaN.
    """

    tape: Tape | None = None
    error: str = ""
    failure: str = ""
    steps: int = 0


class LookingSearch(Search):
    """Looks at calls that it is told of: a wrapper of every call would stand between them and the user's lines."""

    def add(self, optimizer: Optimizer) -> None:
        super().add(optimizer)
        self.close()

    def look(self, module: nn.Module) -> None:
        """A module is called."""
        if self.waiting:
            self._look(module)


class Replay(Session):
    """A session that traces the steps of a span, up to the first that is not finite."""

    def __init__(self, request: Request) -> None:
        super().__init__(QUIET, self._end_step)
        self._span, self._last, self._repairs = request.span, request.span.last + request.more, request.repairs
        self._relay, self._loaded = Relay(), LoadedBatch()
        self._tracer: ScriptTracer | None = None
        self._is_new = True
        self._bad: frozenset[str] | None = None
        self._hooks, self._roots = ExitStack(), ExitStack()
        self.answer = Answer()

    def run(self, script: Script) -> Answer:
        """Run the script until the answer is known."""
        with self._hooks:
            self._hooks.enter_context(observed(self._relay.observer))  # hears of everything before the session does
            self._hooks.enter_context(self._loaded.noted())
            if self._span.first == 0:  # its forward pass begins before anybody knows the optimizer's model
                self._search: Search = LookingSearch(self._watch)
                self._hooks.callback(register_module_forward_pre_hook(self._look_at_call).remove)
            with self:
                try:
                    scripts.run(script)
                except GradcheckError as error:
                    self._failed(error)
            if self._one and self._one.by_hand and not self.answer.tape:
                self._judge(self._one)  # nothing told of the end of its last step
            self._end_tracing()
        return self.answer

    def after_backward(self, loss: Tensor) -> None:
        super().after_backward(loss)
        self._is_new = self._is_new or torch._C._current_graph_task_id() == -1
        one = self._one
        if self._tracer and one and one.by_hand:
            self._tracer.begin_update(one.optimizer)

    @property
    def _one(self) -> Watched | None:
        """The model of the span, once it is there."""
        return self.watched[self._span.model] if len(self.watched) > self._span.model else None

    def _watch(self, *found: Any) -> None:
        super()._watch(*found)
        if self._bad is None and self._one:
            self._bad = bad_from_the_start(self._one.model)

    def _look_at_call(self, module: nn.Module, args: Any) -> None:
        """A module is called while step 0 is still to come, or running."""
        if isinstance(self._search, LookingSearch):
            self._search.look(module)
        trains = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters())
        if self._tracer is None and trains and not self._is_over:
            if self._one:
                self._begin_tracing(self._one.model, self._one.roots, module)
            else:
                self._begin_tracing(*everything_trained(), module)
            self._begin_micro_batch(module, args, {})

    @property
    def _is_over(self) -> bool:
        """Whether step 0 has been taken."""
        return self._one is not None and self._one.recorder.taken > 0

    def _begin_tracing(self, model: nn.Module, roots: Sequence[nn.Module], called: nn.Module | None = None) -> None:
        bad = bad_from_the_start(model) if self._bad is None else self._bad
        repairs = self._repairs
        with torch.no_grad():
            repairs.make(model)
        optimizers = [one.optimizer for one in self.watched]
        self._tracer = ScriptTracer(model, optimizers, repairs.operations, repairs.derivatives, bad)
        self._relay.listener = self._tracer.events
        for root in roots:
            if not isinstance(root, torch.jit.ScriptModule):
                hook = root.register_forward_pre_hook(self._begin_micro_batch, with_kwargs=True)
                self._roots.callback(hook.remove)
        self._is_new = True
        self._tracer.begin(called)

    def _end_tracing(self) -> None:
        if self._tracer:
            self._tracer.end()
        self._roots.close()
        self._tracer = self._relay.listener = None

    def _begin_micro_batch(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A root is called: with a new batch, if there was a backward since the last call."""
        in_backward = torch._C._current_graph_task_id() != -1
        if self._tracer and self._is_new and torch.is_grad_enabled() and not in_backward:
            self._is_new = False
            inputs = kwargs if not args else list(args) if not kwargs else [*args, kwargs]
            batch = self._loaded.holding(inputs)
            self._repair(batch)
            self._tracer.begin_micro_batch(batch)

    def _repair(self, batch: Any) -> None:
        """Make the fields of the batch that are to be repaired finite, in place."""
        with torch.no_grad(), _disable_current_modes():
            for path, tensor in floating_tensors(batch, "batch:"):
                if path in self._repairs.sources:
                    value = self._repairs.sources[path]
                    tensor.nan_to_num_(value, value, -value)

    def _end_step(self, one: Watched) -> None:
        if one is not self._one:
            return
        done = one.recorder.taken
        self._judge(one)
        self._end_tracing()
        if self.answer.tape or done > self._last:
            raise scripts.ScriptStop
        if done >= self._span.first:
            self._begin_tracing(one.model, one.roots)

    def _judge(self, one: Watched) -> None:
        """Its step is over: keep the tape if a value is not finite and no GradScaler took care of it."""
        if self._tracer is None:
            return
        if one.by_hand:
            self._tracer.end_update(one.optimizer)
        tape = self._tracer.tape(one.recorder.taken - 1)
        series, only_gradients = one.recorder.series(), all(sink.what == "gradient" for sink in tape.sinks)
        skipped = tape.step < len(series) and series.skipped[tape.step] and not series.loss_scale[tape.step] < 1
        is_harmful = bool(tape.sinks) and not (skipped and only_gradients)
        self.answer = Answer(tape if is_harmful else None, steps=self.answer.steps + 1)

    def _failed(self, error: GradcheckError) -> None:
        """The script raised: in a step that is traced, maybe over a value that is not finite."""
        message = error.message.partition(": ")[2]
        if self._tracer is None:
            self.answer = Answer(failure=f"run again, it raised {message}")
            return
        step = self._one.recorder.taken if self._one else 0
        tape = self._tracer.tape(step)
        if not tape.sinks and (is_numeric(error) or looks_at_bad_number(tape)):
            self._tracer.note_error(message)
            self.answer = Answer(self._tracer.tape(step), scripts.describe_failure(error), steps=self.answer.steps + 1)
        elif tape.sinks:
            self.answer = Answer(tape, steps=self.answer.steps + 1)
        else:
            self.answer = Answer(failure=f"run again, it raised {message}", steps=self.answer.steps + 1)


def everything_trained() -> tuple[nn.Module, list[nn.Module]]:
    """The outermost modules with parameters that are trained, as one, and each."""
    trained = [m for _, m, _ in living_modules() if any(p.requires_grad for p in m.parameters())]
    inner = {id(child) for module in trained for child in module.modules() if child is not module}
    outermost = [module for module in trained if id(module) not in inner]
    return bundle(outermost), outermost


def looks_at_bad_number(tape: Tape) -> bool:
    """Whether the last that the step did was to look at a single number that is not finite."""
    last = [operand.state for operation in tape.operations[-CHECKING:] for operand in operation.inputs]
    return any(state.numel == 1 and not state.finite for state in last)


def main(folder: str) -> None:
    """Answer the request in a folder."""
    request: Request = pickle.loads(Path(folder, "request").read_bytes())
    replay = Replay(request)
    request.random.restore()
    answer = replay.run(request.script)
    Path(folder, "answer").write_bytes(pickle.dumps(answer))
    os._exit(0)  # the script's threads may go on for ever
