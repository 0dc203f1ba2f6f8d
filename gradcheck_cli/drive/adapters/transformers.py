"""A Trainer of transformers, made into a workload: its model, data, loss, optimizer and schedule."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from gradcheck_cli.drive.adapters.parts import PROFILE_SCRIPT, Adapted, base_of, overrides, settings_note
from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError


def is_trainer(value: Any) -> bool:
    """Whether it is a transformers.Trainer."""
    return base_of(value, "Trainer", "transformers") is not None


def parts_of_trainer(trainer: Any) -> Adapted:
    """Its parts; the loss is that of `compute_loss`, a mean over the batch. Raises TargetError when it makes none."""
    with user_code("the Trainer cannot be made ready to train", PROFILE_SCRIPT, kind=TargetError):
        loader = trainer.get_train_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=count_steps(trainer.args, loader))

    def training_step(model: nn.Module, batch: Any) -> Tensor:
        return trainer.compute_loss(model, copy.copy(batch))  # type: ignore[no-any-return]  # it may pop the labels

    parts = {
        "model": trainer.model,
        "dataloader": loader,
        "training_step": training_step,
        "optimizer": trainer.optimizer,
        "scheduler": trainer.lr_scheduler,
    }
    return Adapted(parts, notes_on(trainer))


def count_steps(args: Any, loader: Any) -> int:
    """How many optimizer steps the Trainer would make: what its schedule is made for."""
    if args.max_steps > 0:
        return int(args.max_steps)
    per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
    steps: int = math.ceil(per_epoch * args.num_train_epochs)
    return max(steps, 1)


def notes_on(trainer: Any) -> tuple[str, ...]:
    """What of it is not used."""
    args = trainer.args
    precision = "fp16" if args.fp16 else "bf16" if args.bf16 else "fp32"
    notes = settings_note(args.gradient_accumulation_steps, args.max_grad_norm, precision)
    if overrides(trainer, base_of(trainer, "Trainer", "transformers"), "training_step"):
        return (*notes, f"the Trainer's own training_step is not called: {PROFILE_SCRIPT}")
    return notes
