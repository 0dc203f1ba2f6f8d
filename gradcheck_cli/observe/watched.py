"""One model in training, with its recorder, and what its calls tell of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gradcheck_cli.observe.deliveries import Deliveries
from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.hand_updates import HandUpdates
from gradcheck_cli.observe.naming import bears_weights, is_compiled
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.search import parameter_ids

STAMPED = 64
MOST_CALLS = 256
"""A model that is called so often without a step is not looked into until there is one."""


class Stamped:
    """Some of an optimizer's parameters, to see which backward reaches them."""

    def __init__(self, optimizer: Optimizer) -> None:
        every: list[Tensor] = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        self.tensors = every[:: max(1, len(every) // STAMPED)]

    def stamps(self) -> list[tuple[int, int]]:
        """What changes when a gradient does."""
        gradients = [tensor.grad for tensor in self.tensors]
        return [(0, 0) if gradient is None else (id(gradient), gradient._version) for gradient in gradients]


class Watched:
    """`roots` are the modules of the model that are called.

    `precision` is that of the first training call, `backwards` counts those of the first step.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        roots: Sequence[nn.Module],
        optimizer: Optimizer,
        settings: RecorderSettings,
        deliveries: Deliveries,
    ) -> None:
        self.name, self.model, self.roots, self.optimizer = name, model, roots, optimizer
        self.by_hand = isinstance(optimizer, HandUpdates)
        self.recorder = Recorder(model, optimizer, settings)
        self.training, self.scaled, self.sees_loss, self.backwards = True, False, False, 0
        self._deliveries = deliveries
        self._ids = parameter_ids(optimizer)
        self._stamped = Stamped(optimizer)
        first = self._stamped.tensors[0]
        self.device, self.precision = first.device, precision_of(first)
        self._calls = self._known = 0
        self._in_closure = False
        self._handles = list(self._hooks())
        self.recorder.start()

    def stop(self) -> None:
        """Leave nothing behind."""
        for handle in self._handles:
            handle.remove()
        if self.by_hand:
            self.end_step_by_hand()
        self.recorder.stop()

    def stamps(self) -> list[tuple[int, int]]:
        """What changes when a gradient does."""
        return self._stamped.stamps()

    def holds(self, parameters: set[int]) -> bool:
        """Whether one of the parameters, by identity, is its optimizer's."""
        return not self._ids.isdisjoint(parameters)

    def after_backward(self, loss: Tensor) -> None:
        """A backward from `loss` has changed its gradients."""
        self.sees_loss = True
        self.backwards += self.recorder.taken == 0
        self.recorder.before_backward(loss)
        if self._in_closure:
            self.recorder.after_backward(loss)
        if self.by_hand:
            self.recorder.measure_again()

    def before_update(self, has_closure: bool) -> None:
        """Its optimizer's step begins."""
        self._in_closure = has_closure
        self.recorder.before_update(self.optimizer, has_closure)

    def after_update(self) -> None:
        """Its optimizer's step has ended."""
        self._in_closure = False
        self.recorder.after_update(self.optimizer)

    def forget_gradients(self) -> None:
        """The gradients so far were thrown away; those that were measured in a closure, or by hand, have been used."""
        draft = self.recorder.draft
        if not (draft.measured and (self._in_closure or self.by_hand)):
            draft.losses.clear()
            draft.measured = draft.clipping = False

    def end_step_by_hand(self) -> None:
        """The gradients that were measured have been used by now."""
        if self.recorder.draft.measured:
            self.before_update(False)
            self.after_update()

    def has_stepped(self) -> bool:
        """Whether there is a step since the last time."""
        stepped, self._known = self.recorder.taken > self._known, self.recorder.taken
        self._calls = 0 if stepped else self._calls
        return stepped

    def _hooks(self) -> Iterator[RemovableHandle]:
        for root in self.roots:
            if not isinstance(root, torch.jit.ScriptModule):
                yield root.register_forward_pre_hook(self._before_call, with_kwargs=True)
        layers = [module for module in self.model.modules() if bears_weights(module)]
        if layers and not any(is_compiled(module) for module in self.model.modules()):
            # autocast may begin within the model
            self._first_layer = layers[0].register_forward_pre_hook(self._before_layer)
            yield self._first_layer

    def _before_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if trains():
            self._calls += 1
            if self._calls == 1 and self.recorder.taken == 0:
                self.training, self.precision = self.model.training, precision_of(self._stamped.tensors[0])
            if self._calls <= MOST_CALLS:
                self.recorder.inputs.look(self._deliveries.find([*args, *kwargs.values()]), "input")
            elif self.recorder.draft.probing:
                self._stop_probing()

    def _before_layer(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if trains():
            self.precision = precision_of(self._stamped.tensors[0])
            self._first_layer.remove()

    def _stop_probing(self) -> None:
        self.recorder.draft.probing = False
        self.recorder.instruments.detach()
        self.recorder.instruments.hand_over(Draft(False))


def trains() -> bool:
    """Whether a module is called with gradients, and not again within a backward, as gradient checkpointing does."""
    return not torch.compiler.is_compiling() and torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1


def precision_of(parameter: Tensor) -> str:
    """fp32, bf16 or fp16: by autocast, if it is on, else by the parameter."""
    kind = parameter.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")
