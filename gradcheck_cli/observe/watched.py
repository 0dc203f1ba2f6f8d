"""One model in training, with its recorder, and what its calls tell of the run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gradcheck_cli.observe.deliveries import Deliveries
from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.hand_updates import HandUpdates
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.search import name_of, parameter_ids

STAMPED = 64
MOST_CALLS = 256
"""A model that is called so often without a step is not looked into until there is one."""


class Watched:
    """`precision` is that of the first training call, `backwards` counts those of the first step."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        settings: RecorderSettings,
        deliveries: Deliveries,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.by_hand = isinstance(optimizer, HandUpdates)
        self.name = name_of(model, ())
        self.recorder = Recorder(model, optimizer, settings)
        self.precision, self.training, self.scaled, self.backwards = "", True, False, 0
        self._deliveries = deliveries
        self._ids = parameter_ids(optimizer)
        tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        self._stamped: list[Tensor] = tensors[:: max(1, len(tensors) // STAMPED)]
        self._calls = self._known = 0
        self.roots = roots_of(model)
        self._handles = [handle for root in self.roots for handle in self._hooks(root)]
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
        gradients = [tensor.grad for tensor in self._stamped]
        return [(0, 0) if gradient is None else (id(gradient), gradient._version) for gradient in gradients]

    def holds(self, parameters: set[int]) -> bool:
        """Whether one of the parameters, by identity, is its optimizer's."""
        return not self._ids.isdisjoint(parameters)

    def after_backward(self, loss: Tensor) -> None:
        """A backward from `loss` has changed its gradients."""
        self.backwards += self.recorder.taken == 0
        self.recorder.before_backward(loss)
        self.recorder.after_backward(loss)
        if self.by_hand:
            self.recorder.measure_again()

    def forget_losses(self) -> None:
        """The gradients so far were thrown away."""
        if not self.recorder.draft.measured:  # else a closure is called again
            self.recorder.draft.losses.clear()

    def end_step_by_hand(self) -> None:
        """The gradients that were measured have been used by now."""
        if self.recorder.draft.measured:
            self.recorder.before_update(self.optimizer, False)
            self.recorder.after_update(self.optimizer)

    def has_stepped(self) -> bool:
        """Whether there is a step since the last time."""
        stepped, self._known = self.recorder.taken > self._known, self.recorder.taken
        self._calls = 0 if stepped else self._calls
        return stepped

    def _hooks(self, root: nn.Module) -> list[RemovableHandle]:
        return (
            []
            if isinstance(root, torch.jit.ScriptModule)
            else [root.register_forward_pre_hook(self._before_call, with_kwargs=True)]
        )

    def _before_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recomputing = torch._C._current_graph_task_id() != -1
        if torch.is_grad_enabled() and not recomputing and not torch.compiler.is_compiling():
            self._note_call([*args, *kwargs.values()])

    def _note_call(self, data: list[Any]) -> None:
        self.recorder.inputs.look(self._deliveries.find(data), "input")
        self._calls += 1
        if self._calls == MOST_CALLS and self.recorder.draft.probing:
            self.recorder.draft.probing = False
            self.recorder.instruments.detach()
            self.recorder.instruments.hand_over(Draft(False))
        if not self.precision:
            self.precision, self.training = precision_of(self.model), self.model.training


def roots_of(model: nn.Module) -> list[nn.Module]:
    """The module itself, or those that were put together in one because each is called by itself."""
    return list(model.children()) if type(model) is nn.Module else [model]


def precision_of(model: nn.Module) -> str:
    """fp32, bf16 or fp16: by autocast, if it is on, else by the parameters."""
    first = next(model.parameters())
    kind = first.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else first.dtype
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")
