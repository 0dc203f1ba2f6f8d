"""What an entrypoint returns, made into one thing that can be trained."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from gradcheck_cli.drive.adapters import adapt
from gradcheck_cli.drive.batches import Batch, windows
from gradcheck_cli.drive.optimizers import NoUpdate, make_optimizer
from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError

KEYS = ("model", "dataloader", "loss_fn", "training_step", "optimizer", "scheduler")
CONTRACT = (
    "return a mapping with model, dataloader and loss_fn or training_step (optimizer and scheduler are optional),"
    " or a tuple (model, dataloader[, loss_fn[, optimizer]])"
)
TrainingStep = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Workload:
    """A model, its data and how one batch becomes a loss. `notes` say what had to be filled in.

    `trainer` and `join` are those of `drive.adapters.parts.Adapted`. Forward and backward of all but the last batch
    of a window run in `holding`, which keeps the ranks from synchronising gradients that are not complete.
    """

    model: nn.Module
    dataloader: Iterable[Any]
    training_step: TrainingStep
    optimizer: Optimizer
    scheduler: Any = None
    loss_fn: Any = None
    notes: tuple[str, ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    join: Callable[[Sequence[Any]], list[Any]] = list
    holding: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def has_optimizer(self) -> bool:
        """Whether steps change the weights."""
        return not isinstance(self.optimizer, NoUpdate)

    def windows(self, length: int) -> Generator[list[Batch], None, None]:
        """The batches of each optimizer step in turn; raises what `drive.batches.windows` does."""
        return windows(self.dataloader, length, self.join)

    def zero_grad(self) -> None:
        """Drop all gradients, also those of parameters that the optimizer does not hold: nothing may pile up."""
        self.model.zero_grad(set_to_none=True)
        self.optimizer.zero_grad(set_to_none=True)

    def prepare(self, device: torch.device, training: bool) -> None:
        """Move the model, and a criterion that is a module, in place; set the model's mode."""
        with user_code(f"the model cannot be moved to {device}", kind=TargetError):
            self.model.to(device)
            if isinstance(self.loss_fn, nn.Module):
                self.loss_fn.to(device)
            self.model.train(training)


def make_workload(returned: Any, optimizer: str | None = None, lr: float | None = None) -> Workload:
    """Check what an entrypoint returned and complete it; `optimizer` and `lr` replace its optimizer.

    Raises TargetError, saying what is missing or of the wrong kind.
    """
    adapted = adapt(returned)
    parts = parts_of(adapted.returned)
    model, dataloader = check_model(parts.get("model")), check_dataloader(parts.get("dataloader"))
    chosen, notes = choose_optimizer(model, parts, optimizer, lr)
    scheduler = parts.get("scheduler") if chosen is parts.get("optimizer") else None
    if scheduler is not None and not callable(getattr(scheduler, "step", None)):
        raise TargetError(f"scheduler is of type {type(scheduler).__name__}, which has no step()", CONTRACT)
    return Workload(
        model=model,
        dataloader=dataloader,
        training_step=choose_step(parts),
        optimizer=chosen,
        scheduler=scheduler,
        loss_fn=parts.get("loss_fn"),
        notes=(*adapted.notes, *notes),
        trainer=adapted.trainer,
        join=adapted.join,
    )


def parts_of(returned: Any) -> dict[str, Any]:
    """The parts by KEYS, whichever of the three forms the entrypoint used."""
    parts: dict[str, Any]
    if isinstance(returned, Mapping):
        check_keys(returned, returned)
        parts = {key: returned.get(key) for key in KEYS}
    elif isinstance(returned, (tuple, list)) and not hasattr(returned, "model"):
        if not 2 <= len(returned) <= 4:
            raise TargetError(f"the entrypoint returned a tuple of {len(returned)}", CONTRACT)
        parts = dict(zip(("model", "dataloader", "loss_fn", "optimizer"), returned, strict=False))
    else:
        with user_code("what the entrypoint returned cannot be read", kind=TargetError):  # it may have properties
            parts = {key: getattr(returned, key) for key in KEYS if hasattr(returned, key)}
        check_keys(getattr(returned, "__dict__", {}), parts)
    return {key: value for key, value in parts.items() if value is not None}


def check_keys(names: Iterable[Any], known: Collection[Any]) -> None:
    """Raise TargetError for a name that is probably a misspelt key; other extra names are the user's business."""
    for key in names:
        close = difflib.get_close_matches(str(key), KEYS, 1, 0.75)
        if key not in KEYS and close and close[0] not in known:
            raise TargetError(f"the entrypoint returned {key!r}", f"did you mean {close[0]!r}?")


def check_model(model: Any) -> nn.Module:
    """The model, if it is one that can be trained."""
    if model is None:
        raise TargetError("the entrypoint returned no model", CONTRACT)
    if not isinstance(model, nn.Module):
        raise TargetError(f"model is of type {type(model).__name__}, not a torch.nn.Module", CONTRACT)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        count = len(list(model.parameters()))
        raise TargetError(
            "the model has no trainable parameter" + (f": all {count} have requires_grad=False" if count else ""),
            "unfreeze what should be trained with requires_grad_(True)",
        )
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise TargetError(
            f"{lazy[0]} has no shape yet: lazy modules get theirs in the first forward pass",
            "call model(inputs) once in the entrypoint, before the optimizer is made",
        )
    return model


def check_dataloader(dataloader: Any) -> Iterable[Any]:
    """The data, if it can be iterated in batches."""
    if dataloader is None:
        raise TargetError("the entrypoint returned no dataloader", CONTRACT)
    data = torch.utils.data
    if isinstance(dataloader, data.Dataset) and not isinstance(dataloader, data.IterableDataset):
        raise TargetError(
            "dataloader is a Dataset, which yields single samples", "wrap it: DataLoader(dataset, batch_size=32)"
        )
    if not hasattr(dataloader, "__iter__") and not hasattr(dataloader, "__getitem__"):
        raise TargetError(f"dataloader is of type {type(dataloader).__name__}, which cannot be iterated", CONTRACT)
    return dataloader  # type: ignore[no-any-return]


def choose_optimizer(
    model: nn.Module, parts: Mapping[str, Any], name: str | None, lr: float | None
) -> tuple[Optimizer, tuple[str, ...]]:
    """The optimizer to use, and what the report should say of it."""
    given = parts.get("optimizer")
    if name is not None:
        replaced = ("--optimizer replaces the entrypoint's optimizer and scheduler",) if given is not None else ()
        return make_optimizer(name, [p for p in model.parameters() if p.requires_grad], lr), replaced
    if lr is not None:
        raise TargetError("--lr was given without --optimizer", "add --optimizer adamw, say")
    if given is None:
        return NoUpdate(model.parameters()), ("no optimizer: the weights stay where they are (--optimizer makes one)",)
    if not isinstance(given, Optimizer):
        raise TargetError(f"optimizer is of type {type(given).__name__}, not a torch.optim.Optimizer", CONTRACT)
    if isinstance(given, torch.optim.LBFGS):
        raise TargetError(
            "LBFGS evaluates the loss inside its step, through a closure", "profile with --optimizer sgd --lr 0.01, say"
        )
    return given, ()


def choose_step(parts: Mapping[str, Any]) -> TrainingStep:
    """How a batch becomes a loss: the user's training_step, the criterion, or the model's own loss."""
    if (step := parts.get("training_step")) is not None:
        if not callable(step):
            raise TargetError(f"training_step is of type {type(step).__name__}, not callable", CONTRACT)
        return step  # type: ignore[no-any-return]
    if (loss_fn := parts.get("loss_fn")) is not None:
        if not callable(loss_fn):
            raise TargetError(f"loss_fn is of type {type(loss_fn).__name__}, not callable", CONTRACT)
        return step_with_criterion(loss_fn)
    return step_of_model


def step_with_criterion(loss_fn: Callable[[Any, Any], Tensor]) -> TrainingStep:
    """A training step for batches of (inputs, target)."""

    def training_step(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TargetError(
                f"with loss_fn, a batch must be (inputs, target); this one is {outline(batch)}",
                "return training_step(model, batch) -> loss instead of loss_fn",
            )
        return loss_fn(model(batch[0]), batch[1])

    return training_step


def step_of_model(model: nn.Module, batch: Any) -> Tensor:
    """A training step for models that compute their own loss: `model(**batch).loss`."""
    if not isinstance(batch, Mapping):
        raise TargetError(
            "the entrypoint returned neither loss_fn nor training_step,"
            f" and model(**batch) needs a mapping; the batch is {outline(batch)}",
            CONTRACT,
        )
    output = model(**batch)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise TargetError(
            f"the entrypoint returned neither loss_fn nor training_step, and the model's output, {outline(output)},"
            " has no loss",
            "return training_step(model, batch) -> loss; a transformers model gives a loss when the batch has labels",
        )
    return loss  # type: ignore[no-any-return]


def outline(value: Any, depth: int = 2) -> str:
    """A batch or an output in a few words: types, shapes, keys."""
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping) and depth:
        return "{" + ", ".join(f"{key!r}: {outline(item, depth - 1)}" for key, item in list(value.items())[:6]) + "}"
    if isinstance(value, (tuple, list)) and depth:
        inner = ", ".join(outline(item, depth - 1) for item in value[:4])
        return f"{type(value).__name__} of {len(value)}: ({inner})"
    return type(value).__name__
