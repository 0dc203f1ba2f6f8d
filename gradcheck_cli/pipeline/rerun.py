"""Passes over batches that a run had, after it; everything can be put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from gradcheck_cli.drive.batches import Batch, clone
from gradcheck_cli.drive.loop import LoopSettings, compute_loss, run
from gradcheck_cli.drive.optimizers import NoUpdate
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.observe.nan.snapshot import Snapshot


class Rerun:
    """A workload after its run, whose step can be repeated without an update; `parameters` are those that are trained.

    Batches are cloned, so that a step that writes to its batch can be repeated as well.
    """

    def __init__(self, workload: Workload, device: torch.device) -> None:
        owned = [p for group in workload.optimizer.param_groups for p in group["params"]]
        every = {id(p): p for p in (*workload.model.parameters(), *owned)}.values()
        self.device = device
        self.parameters = [parameter for parameter in every if parameter.requires_grad]
        self.workload = replace(workload, optimizer=NoUpdate(self.parameters), scheduler=None)
        modules = [part for part in (workload.model, workload.loss_fn) if isinstance(part, nn.Module)]
        functions = [workload.training_step, workload.loss_fn, *(module.forward for module in modules)]
        self._snapshot = Snapshot(modules, [workload.optimizer], None, GradScaler(enabled=False), functions)

    def restore(self) -> None:
        """Put back parameters, gradients, buffers, the optimizer, random states and the user's variables."""
        self._snapshot.restore()

    def gradients(
        self, window: Sequence[Batch], precision: str = "fp32", scaler: GradScaler | None = None
    ) -> list[Tensor]:
        """The gradient of each of the parameters as an optimizer gets it for these batches, unscaled and unclipped.

        Zeros where there is none. Raises what `drive.loop.run` raises.
        """
        settings = LoopSettings(self.device, precision, steps=1)
        for _ in run(self.workload, [[cloned(batch) for batch in window]], settings, scaler=scaler):
            pass
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self.workload.zero_grad()
        return [gradient.to_dense() for gradient in gradients]

    def loss(self, window: Sequence[Batch]) -> Tensor:
        """The mean loss of the batches, 0-d and in its own dtype, without autocast.

        Raises what `drive.loop.compute_loss` raises.
        """
        settings = LoopSettings(self.device)
        losses = [compute_loss(self.workload, cloned(batch), settings, step=0).detach() for batch in window]
        return torch.stack([loss.reshape(()) for loss in losses]).mean()


def cloned(batch: Batch) -> Batch:
    """The batch with data of its own."""
    return replace(batch, data=clone(batch.data))


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float64, or the nearest to it that its device has."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()
