"""A Trainer of transformers, made into a workload that is trained as `Trainer.train` would."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gradcheck_cli.drive.adapters.parts import PROFILE_SCRIPT, Adapted, base_of, overrides
from gradcheck_cli.drive.batches import rebuilt
from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError

ITEMS, BATCHES = "num_items_in_batch", "batches_in_window"
NOT_CALLED = ("training_step", "_prepare_inputs", "_inner_training_loop", "_run_epoch", "_clip_grad_norm")


def is_trainer(value: Any) -> bool:
    """Whether it is a transformers.Trainer."""
    return base_of(value, "Trainer", "transformers") is not None


def parts_of_trainer(trainer: Any) -> Adapted:
    """Its parts; `compute_loss`, normalised as in `train`, makes the loss. Raises TargetError where it has no data."""
    with user_code("the Trainer cannot be made ready to train", PROFILE_SCRIPT, kind=TargetError):
        loader = trainer.get_train_dataloader()
        trainer.args._n_gpu = min(trainer.args.n_gpu, 1)  # it would split the batches among all GPUs
        trainer.create_optimizer_and_scheduler(num_training_steps=count_steps(trainer.args, loader))
    parts = {
        "model": trainer.model,
        "dataloader": loader,
        "training_step": stepping(trainer),
        "optimizer": trainer.optimizer,
        "scheduler": None if needs_metric(trainer.lr_scheduler) else trainer.lr_scheduler,
    }
    return Adapted(parts, notes_on(trainer), settings_of(trainer), joining(trainer))


def count_steps(args: Any, loader: Any) -> int:
    """How many optimizer steps the Trainer would make: what its schedule is made for."""
    if args.max_steps > 0:
        return int(args.max_steps)
    per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
    steps: int = math.ceil(per_epoch * args.num_train_epochs)
    return max(steps, 1)


def joining(trainer: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """What counts the items of a window, labels that are not ignored, and notes their number in each of its batches."""
    takes_device = len(inspect.signature(trainer.get_batch_samples).parameters) > 2  # older ones do not

    def join(batches: Sequence[Any]) -> list[Any]:
        rest = (trainer.args.device,) if takes_device else ()
        with user_code("the Trainer cannot count the items of its batches"):
            batches, items = trainer.get_batch_samples(iter(batches), len(batches), *rest)
        known = {BATCHES: len(batches)} if items is None else {BATCHES: len(batches), ITEMS: items}
        return [rebuilt(one, {**one, **known}) if isinstance(one, Mapping) else one for one in batches]

    return join


def stepping(trainer: Any) -> Callable[[nn.Module, Any], Tensor]:
    """The Trainer's loss as `training_step(model, batch)`.

    The loop takes the mean over a window. A loss that is divided by the items of the whole window is a part of a sum
    instead, as in `Trainer.training_step`, so that it is multiplied by the number of batches.
    """

    def training_step(model: nn.Module, batch: Any) -> Tensor:
        inputs = copy.copy(batch)  # what is added to it comes off here, and compute_loss may pop the labels
        items, batches = take(inputs, ITEMS, None), take(inputs, BATCHES, 1)
        with autocast_in_forward(model):
            loss = trainer.compute_loss(model, inputs, num_items_in_batch=items)
        return loss * batches if batches > 1 and is_part_of_sum(trainer, items) else loss  # type: ignore[no-any-return]

    return training_step


def take(inputs: Any, name: str, default: Any) -> Any:
    """Remove what `joining` noted."""
    return inputs.pop(name, default) if isinstance(inputs, Mapping) else default  # type: ignore[attr-defined]


def is_part_of_sum(trainer: Any, items: Any) -> bool:
    """Whether `compute_loss` has normalised over the whole window, as `Trainer.training_step` decides it."""
    declared = getattr(trainer, "loss_is_scaled_for_ga", None)
    if declared is not None:
        return bool(declared)
    return (trainer.model_accepts_loss_kwargs and items is not None) or trainer.compute_loss_func is not None


@contextmanager
def autocast_in_forward(model: nn.Module) -> Iterator[None]:
    """Where autocast is on: only in the model's forward, whose outputs become fp32, as Accelerate prepares a model."""
    device = next(model.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        yield
        return
    from accelerate.utils import convert_outputs_to_fp32  # type: ignore[import-untyped]

    own = vars(model).get("forward")
    cast = torch.autocast(device, dtype=torch.get_autocast_dtype(device))
    model.forward = convert_outputs_to_fp32(cast(model.forward))
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        del model.forward
        vars(model).update({"forward": own} if own else {})


def needs_metric(scheduler: Any) -> bool:
    """Whether it follows the metrics of an evaluation."""
    return isinstance(scheduler, ReduceLROnPlateau) or type(scheduler).__name__ == "GreedyLR"


def settings_of(trainer: Any) -> dict[str, Any]:
    """How it is set, as `Adapted.trainer` has it."""
    precision = str(trainer.accelerator.mixed_precision)
    return {
        "accumulate": trainer.args.gradient_accumulation_steps,
        "clip": trainer.args.max_grad_norm or None,
        "precision": precision if precision in ("bf16", "fp16") else "fp32",
    }


def notes_on(trainer: Any) -> tuple[str, ...]:
    """What of it is not used."""
    base = base_of(trainer, "Trainer", "transformers")
    own = [name for name in NOT_CALLED if overrides(trainer, base, name)]
    notes: tuple[str, ...] = ()
    if own:
        notes += (f"the Trainer's own {', '.join(own)} is not called: {PROFILE_SCRIPT}",)
    if needs_metric(trainer.lr_scheduler):
        notes += (f"{type(trainer.lr_scheduler).__name__} is not stepped",)
    if getattr(trainer, "neftune_noise_alpha", None) is not None:
        notes += ("neftune_noise_alpha is not applied",)
    return notes
