"""One observer of torch for all recorders that are open: they may be opened and closed in any order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.integrations.selective_recorder import SelectiveRecorder
from gradcheck_cli.observe.hooks import observed, patched
from gradcheck_cli.observe.loss_scales import LossScales
from gradcheck_cli.observe.watched import Stamped


class Heard:
    """A recorder and what its optimizer trains; `before` are the stamps that a backward found.

    `scales` are those of the relay that it was attached to last.
    """

    def __init__(self, recorder: SelectiveRecorder) -> None:
        self.recorder, self.optimizer, self.scaled = recorder, recorder.optimizer, False
        self.stamped = Stamped(recorder.optimizer)
        self.before: list[tuple[int, int]] = []
        self.scales = LossScales()


class Relay:
    """Passes each event on to every recorder, a loss to those whose gradients its backward changed.

    Hooks into torch while there is one."""

    def __init__(self) -> None:
        self._heard: tuple[Heard, ...] = ()
        self._scales = LossScales()
        self._hooks = ExitStack()

    def attach(self, heard: Heard) -> None:
        """Begin to report to a recorder."""
        if not self._heard:
            self._scales = LossScales()
            self._hooks.enter_context(observed(self))
            self._hooks.enter_context(patched(GradScaler, "scale", self._scales.noting))
        self._heard += (heard,)
        heard.scales = self._scales
        heard.recorder.start()

    def detach(self, heard: Heard) -> None:
        """Report to it no more."""
        self._heard = tuple(one for one in self._heard if one is not heard)
        heard.recorder.stop()
        if not self._heard:
            self._hooks.close()

    def before_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() == -1 and len(self._heard) > 1:
            for one in self._heard:
                one.before = one.stamped.stamps()

    def after_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() != -1:  # gradient checkpointing, inside a backward
            return
        loss, scale = self._scales.undo(loss)
        for one in self._heard:
            if len(self._heard) == 1 or one.stamped.stamps() != one.before:
                one.recorder.before_backward(loss)
                one.recorder.after_backward(loss)
                self._scales.after_backward(one, scale)

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        """`_scales` hears of it itself, and of the GradScaler."""

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        for one in self._heard:
            if one.optimizer is optimizer:
                self._scales.after_unscale(one)
            one.recorder.after_unscale(scaler, optimizer)

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        for one in self._heard:
            one.recorder.before_clip(parameters, max_norm)
            if one.recorder.draft.clipping:
                self._scales.after_measuring_for_clip(one)

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        for one in self._heard:
            one.recorder.before_update(optimizer, has_closure)
            if one.optimizer is optimizer:
                self._scales.after_measuring_for_update(one)

    def after_update(self, optimizer: Optimizer) -> None:
        for one in self._heard:
            one.recorder.after_update(optimizer)

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        for one in self._heard:
            one.recorder.after_scaler_step(optimizer)


RELAY = Relay()
