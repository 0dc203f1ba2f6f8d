"""A training loop as anybody would write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gradcheck_cli.drive.batches import Batch, move
from gradcheck_cli.drive.devices import autocast
from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.drive.workload import Workload, outline
from gradcheck_cli.errors import UserCodeError

NO_BACKWARD = "a training_step returns its loss, without a backward"
MaxNorm = float | Callable[[float], float]
"""Where to clip: a fixed norm, or what a function makes of the norm of each step in turn."""


@dataclass(frozen=True)
class LoopSettings:
    """How to train; gradients are clipped at `max_norm` if that is not None."""

    device: torch.device
    precision: str = "fp32"
    steps: int = 50
    max_norm: MaxNorm | None = None


def run(
    workload: Workload,
    source: Iterable[list[Batch]],
    settings: LoopSettings,
    inspect: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
    scaler: GradScaler | None = None,
) -> Iterator[int]:
    """Train for up to `settings.steps` optimizer steps; yields the number of each after it, from 0.

    A window of `source` is one step; its batches pass through `inspect` on their way to the model.
    `scaler` is one from `make_scaler` that has been at work already.
    Raises UserCodeError when the user's code raises, TargetError when its loss cannot be used.
    """
    parameters: list[Tensor] = list(workload.model.parameters())
    scaler = scaler or make_scaler(settings)
    for step, window in zip(range(settings.steps), source, strict=False):
        workload.zero_grad()
        for number, batch in enumerate(inspect(window), 1):
            with workload.holding() if number < len(window) else nullcontext():
                loss = compute_loss(workload, batch, settings, step)
                with user_code(f"backward failed in step {step}", NO_BACKWARD):
                    scaler.scale(loss / len(window) if len(window) > 1 else loss).backward()  # type: ignore[no-untyped-call]
        with user_code(f"the optimizer failed in step {step}"):
            if scaler.is_enabled():
                scaler.unscale_(workload.optimizer)
            if settings.max_norm is not None:
                clip(parameters, settings.max_norm)
            scale = scaler.get_scale()
            scaler.step(workload.optimizer)
            scaler.update()
            if scaler.get_scale() >= scale:  # else the gradients overflowed and there was no optimizer step
                step_scheduler(workload.scheduler, loss)
        yield step


def clip(parameters: list[Tensor], max_norm: MaxNorm) -> None:
    """Clip the global norm of the gradients; a function that gives max_norm is not asked about a non-finite norm."""
    alike = list(split_by_mesh(parameters))
    if not callable(max_norm) and len(alike) == 1:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    norms = [norm_of(some) for some in alike]
    norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    if not callable(max_norm) or norm.isfinite():
        limit = max_norm(float(norm)) if callable(max_norm) else max_norm
        for some in alike:
            torch.nn.utils.clip_grads_with_norm_(some, limit, norm)


def split_by_mesh(parameters: list[Tensor]) -> Iterable[list[Tensor]]:
    """The parameters with gradients, those of which the ranks of one device mesh have the parts together."""
    groups: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(getattr(parameter.grad, "device_mesh", None), []).append(parameter)
    return groups.values() or [parameters]


def norm_of(parameters: list[Tensor]) -> Tensor:
    """The norm of all their gradients, 0-d."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def make_scaler(settings: LoopSettings) -> GradScaler:
    """The loss scaler that the precision asks for; it does nothing but in fp16."""
    return GradScaler(settings.device.type, enabled=settings.precision == "fp16")


def compute_loss(workload: Workload, batch: Batch, settings: LoopSettings, step: int) -> Tensor:
    """The loss of one micro-batch. Raises UserCodeError when the step raises or its loss cannot be used."""
    where = f"step {step}, batch {batch.index}" + (f" of epoch {batch.epoch}" if batch.epoch else "")
    with user_code(f"training failed in {where}", f"the batch is {outline(batch.data)}"):
        with autocast(settings.device, settings.precision):
            loss = workload.training_step(workload.model, move(batch.data, settings.device))
    check_loss(loss, where)
    return loss


def step_scheduler(scheduler: Any, loss: Tensor) -> None:
    """Advance the schedule by one optimizer step, if there is one."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss.detach())
    elif scheduler is not None:
        scheduler.step()


def check_loss(loss: object, where: str) -> None:
    """Raise UserCodeError unless backward can be called on the loss."""
    if not isinstance(loss, Tensor):
        raise UserCodeError(f"the loss in {where} is {outline(loss)}, not a tensor", "return the loss tensor itself")
    if loss.numel() != 1:
        raise UserCodeError(
            f"the loss in {where} has shape {tuple(loss.shape)}, not one number",
            "reduce it: loss.mean(), or reduction='mean'",
        )
    if not loss.requires_grad:
        raise UserCodeError(
            f"the loss in {where} does not require grad: nothing leads from it back to a parameter",
            "look for .detach(), .item(), torch.no_grad(), or a loss made of integers or labels only",
        )
