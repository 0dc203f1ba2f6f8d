"""Training as a plain torch loop, without gradcheck: what the corpus says of itself is checked against this."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from tests.nan_corpus.corpus import CASES, CONTROLS, Case

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Value:
    """A value that matters, as it was at one moment: `what` is loss, gradient, buffer, parameter, `name` whose."""

    step: int
    micro_batch: int
    what: str
    name: str
    tensor: Tensor

    @property
    def finite(self) -> bool:
        """Whether every element is."""
        return bool(torch.isfinite(self.tensor).all())


@dataclass(frozen=True)
class Failure:
    """The first value that was not finite, or the message of the exception (`what` is error)."""

    step: int
    micro_batch: int
    what: str
    name: str


def load_corpus() -> tuple[list[Case], list[Case]]:
    """All cases and all controls, whichever files register them."""
    folder = Path(__file__).parent
    for path in sorted({*folder.glob("*_cases*.py"), *folder.glob("controls*.py")}):
        importlib.import_module(f"{__package__}.{path.stem}")
    return CASES, CONTROLS


def find_failure(case: Case, steps: int) -> Failure | None:
    """The first failure of a run of at most `steps` steps from seed 0; None if all stays finite."""
    step = 0
    try:
        for value in train(case, steps):
            step = value.step
            if not value.finite:
                return Failure(step, value.micro_batch, value.what, value.name)
    except (RuntimeError, ValueError) as error:
        return Failure(step, 0, "error", str(error))
    return None


def train(case: Case, steps: int) -> Iterator[Value]:
    """Train from seed 0 for `steps` steps and yield each value that matters, when it is there.

    A step is announced by a value called "start". Elements of a buffer that were not finite to begin with (a -inf
    mask) are left out. Under a GradScaler, gradients that overflow are those of the step in float32.
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    parts = case.entrypoint()
    model: nn.Module = parts["model"].train()
    clean = {name: torch.isfinite(buffer) for name, buffer in model.named_buffers()}
    scaler = GradScaler("cpu", enabled=case.settings.get("precision") == "fp16")
    source = windows(parts["dataloader"], case.settings.get("accumulate", 1))
    for step, window in zip(range(steps), source, strict=False):
        yield Value(step, 0, "start", "", torch.zeros(()))
        yield from compute_gradients(case, parts, window, scaler, step)
        for name, buffer in model.named_buffers():
            yield Value(step, len(window) - 1, "buffer", name, buffer[clean[name]])
        update(case, parts, scaler)
        for name, parameter in model.named_parameters():
            yield Value(step, len(window) - 1, "parameter", name, parameter.detach())


def compute_gradients(
    case: Case, parts: dict[str, Any], window: list[Any], scaler: GradScaler, step: int
) -> Iterator[Value]:
    """The losses and gradients of one step's micro-batches."""
    model, compute_loss = parts["model"], step_of(parts)
    model.zero_grad(set_to_none=True)
    for number, batch in enumerate(window):
        with autocast(case):
            loss = compute_loss(model, batch)
        yield Value(step, number, "loss", "", loss.detach())
        scaler.scale(loss / len(window)).backward()  # type: ignore[no-untyped-call]
        if not scaler.is_enabled():
            yield from gradients(model, step, number)
    if scaler.is_enabled():
        scaler.unscale_(parts["optimizer"])
        if not all(value.finite for value in gradients(model, step, 0)):
            yield from compute_in_float32(parts, window, step)


def compute_in_float32(parts: dict[str, Any], window: list[Any], step: int) -> Iterator[Value]:
    """The gradients of a step once more, without autocast and scale."""
    model, compute_loss = parts["model"], step_of(parts)
    model.zero_grad(set_to_none=True)
    for number, batch in enumerate(window):
        (compute_loss(model, batch) / len(window)).backward()  # type: ignore[no-untyped-call]
        yield from gradients(model, step, number)


def gradients(model: nn.Module, step: int, micro_batch: int) -> Iterator[Value]:
    """The gradients that have piled up so far."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield Value(step, micro_batch, "gradient", name, parameter.grad)


def update(case: Case, parts: dict[str, Any], scaler: GradScaler) -> None:
    """Clip, and step the optimizer and the scheduler, where there are any."""
    if (max_norm := case.settings.get("clip")) is not None:
        nn.utils.clip_grad_norm_(parts["model"].parameters(), max_norm)
    if parts.get("optimizer") is not None:
        scaler.step(parts["optimizer"])
        scaler.update()
    if parts.get("scheduler") is not None:
        parts["scheduler"].step()


def step_of(parts: dict[str, Any]) -> Callable[[nn.Module, Any], Tensor]:
    """How a batch becomes a loss: the entrypoint's training_step, its criterion, or the model's own loss."""
    if (training_step := parts.get("training_step")) is not None:
        return training_step  # type: ignore[no-any-return]
    if (loss_fn := parts.get("loss_fn")) is not None:
        return lambda model, batch: loss_fn(model(batch[0]), batch[1])
    return lambda model, batch: output["loss"] if isinstance(output := model(**batch), dict) else output.loss


def autocast(case: Case) -> AbstractContextManager[Any]:
    """Autocast to the case's precision, if that is not fp32."""
    precision = case.settings.get("precision", "fp32")
    return nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=DTYPES[precision])


def windows(dataloader: Any, length: int) -> Iterator[list[Any]]:
    """Batches in windows of `length`, epoch after epoch; an epoch's last may be shorter."""
    while True:
        window: list[Any] = []
        for batch in dataloader:
            window.append(batch)
            if len(window) == length:
                yield window
                window = []
        if window:
            yield window
