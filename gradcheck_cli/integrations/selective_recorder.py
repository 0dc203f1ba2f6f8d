"""A recorder of one optimizer among several in the same loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradcheck_cli.observe.recorder import Recorder


class SelectiveRecorder(Recorder):
    """Tells what concerns its own optimizer from what concerns others.

    A loss that led to another optimizer's step is not its own when a new backward comes before its own step.
    """

    _others_stepped = False

    @property
    def optimizer(self) -> Optimizer:
        """Its own."""
        return self._optimizer

    def before_backward(self, loss: Tensor) -> None:
        if self._others_stepped and torch._C._current_graph_task_id() == -1:
            self.draft.losses.clear()
            self._others_stepped = False
        super().before_backward(loss)

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        own = {id(parameter) for group in self._optimizer.param_groups for parameter in group["params"]}
        if any(id(parameter) in own for parameter in parameters):
            super().before_clip(parameters, max_norm)

    def after_update(self, optimizer: Optimizer) -> None:
        super().after_update(optimizer)
        self._others_stepped = optimizer is not self._optimizer
