"""Watch training steps for what is not finite, at almost no cost, and keep what it takes to run them again.

Nothing is asked of the device within a window of steps: norms of gradients pile up there, and one look at the end of
the window tells whether to look closer. The state at the window's begin, its batches and the random state before
each are kept, so that any of its steps can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import hypot, isfinite, nan
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.observe.inputs import B
from gradcheck_cli.observe.nan.snapshot import RandomState
from gradcheck_cli.observe.nan.states import can_be_bad, elements, is_finite

WINDOW = 128
WINDOW_SECONDS = 4.0
WINDOW_BYTES = 1 << 28


@dataclass(frozen=True)
class HeldBatch:
    """A batch as it was before its forward pass, and the random state then."""

    batch: Any
    random: RandomState


@dataclass
class HeldStep:
    """A step that can be replayed, and what was seen of it; `scale` and `found_inf` only with a GradScaler."""

    number: int
    batches: list[HeldBatch] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    found_inf: Tensor | None = None
    scale: Tensor | None = None
    lr: list[float | Tensor] = field(default_factory=list)
    seconds: float = nan

    @property
    def skipped(self) -> bool:
        """Whether a GradScaler skipped the update."""
        return self.found_inf is not None and bool(self.found_inf)


@dataclass(frozen=True)
class SeenStep:
    """What is known of a step once its window was looked at; see `records.Series`."""

    number: int
    loss: float
    grad_norm: float
    lr: tuple[float, ...]
    skipped: bool
    loss_scale: float
    batch: int
    epoch: int
    seconds: float

    @property
    def nonfinite(self) -> bool:
        """Whether its loss or its gradients were not finite."""
        return not (isfinite(self.loss) and (isfinite(self.grad_norm) or self.skipped))


class Watch:
    """See `hooks.Observer`. `clone` copies a batch's data. Those in `known_bad` are not looked at."""

    def __init__(self, model: nn.Module, clone: Callable[[Any], Any], known_bad: Collection[str]) -> None:
        self._model, self._clone, self._known_bad = model, clone, known_bad
        self._parameters = [p for name, p in model.named_parameters() if f"parameter:{name}" not in known_bad]
        self._on_host = all(parameter.device.type == "cpu" for parameter in self._parameters)
        self._unscaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._exact = self._noted = False
        self._number = 0
        self.loss = nan
        self.history: list[SeenStep] = []
        self._ended = perf_counter()
        self.begin_window()

    def begin_window(self) -> None:
        """Forget the steps kept so far."""
        self.steps: list[HeldStep] = []
        self._current = HeldStep(self._number)
        self._began = perf_counter()
        self._bytes = 0

    def inspect(self, batches: Iterable[B]) -> Iterator[B]:
        """The same batches; a copy of each is kept."""
        for batch in batches:
            data = self._clone(batch.data)
            self._bytes += bytes_of(data)
            self._current.batches.append(HeldBatch(replace(batch, data=data), RandomState()))  # type: ignore[type-var]
            yield batch

    def end_step(self) -> bool:
        """The step is over; tells whether the window is, too."""
        self.steps.append(self._current)
        now = perf_counter()
        self._current.seconds, self._ended = now - self._ended, now
        self._number += 1
        if self._on_host and self._current.losses:
            self.loss = float(self._current.losses[-1])
        self._current = HeldStep(self._number)
        full = len(self.steps) >= WINDOW or self._bytes >= WINDOW_BYTES
        return full or perf_counter() - self._began > WINDOW_SECONDS or (self._on_host and not isfinite(self.loss))

    def cut_short(self) -> bool:
        """The step that runs has failed: it is one to be replayed, unless it has no batch yet."""
        if self._current.batches:
            self.steps.append(self._current)
        return bool(self._current.batches)

    def before_backward(self, loss: Tensor) -> None:
        if torch._C._current_graph_task_id() == -1:
            _, unscaled = self._unscaled.pop(id(loss), (loss, loss))
            self._current.losses.append(unscaled.detach().clone().reshape(()))  # its memory may be used again

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        self._unscaled[id(scaled)] = (scaled, loss)

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
        self._current.found_inf = sum(found, start=torch.zeros(()))
        self._current.scale = scaler._scale.clone()  # type: ignore[union-attr]

    def before_clip(self) -> None:
        self._note_gradients()
        self._noted = True  # as they were before clipping

    def before_update(self, optimizer: Optimizer) -> None:
        if not self._noted:
            self._note_gradients()
        self._noted = False
        rates = [group["lr"] for group in optimizer.param_groups]
        self._current.lr = [rate.detach().clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def after_update(self, optimizer: Optimizer) -> None:
        pass

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        pass

    def look_exactly(self) -> None:
        """Norms overflow although every gradient is finite: look at each element from now on."""
        self._exact = True

    def _note_gradients(self) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self._current.norms += self._sizes(gradients) if gradients else []

    def _sizes(self, tensors: list[Tensor]) -> list[Tensor]:
        """Numbers that are not finite where a tensor is not; the other way round only when looking exactly."""
        if self._exact:
            return [torch.full((), 0.0 if is_finite(tensor) else nan) for tensor in tensors]
        with torch.no_grad():
            return norms(tensors)

    @property
    def grad_norm(self) -> float:
        """The newest global gradient norm that can be had without waiting for the device; NaN before the first."""
        if self._on_host and self.steps and self.steps[-1].norms:
            return hypot(*to_floats(self.steps[-1].norms))
        return self.history[-1].grad_norm if self.history else nan

    def look(self) -> str:
        """What in this window calls for a closer look: loss, state, gradient, or "" for nothing. Adds to `history`."""
        numbers = iter(to_floats([n for step in self.steps for n in (*step.losses, *step.norms)]))
        new = [self._seen(step, numbers) for step in self.steps]
        self.history[self.steps[0].number :] = new
        self.loss = new[-1].loss
        if not all(isfinite(step.loss) for step in new):
            return "loss"
        state = self._state()
        if not all(map(isfinite, to_floats(self._sizes(state)))) and not all(map(is_finite, state)):
            return "state"
        return "" if all(isfinite(step.grad_norm) or step.skipped for step in new) else "gradient"

    @property
    def scale_collapsed(self) -> bool:
        """Whether a GradScaler's loss scale has fallen below 1."""
        return bool(self.history) and self.history[-1].loss_scale < 1

    def _state(self) -> list[Tensor]:
        buffers = [b for n, b in self._model.named_buffers() if f"buffer:{n}" not in self._known_bad]
        return [tensor.detach() for tensor in (*self._parameters, *buffers) if can_be_bad(tensor)]

    def _seen(self, step: HeldStep, numbers: Iterator[float]) -> SeenStep:
        losses = [next(numbers) for _ in step.losses]
        norms = [next(numbers) for _ in step.norms]
        return SeenStep(
            number=step.number,
            loss=sum(losses) / len(losses) if losses else nan,
            grad_norm=hypot(*norms),
            lr=tuple(map(float, step.lr)),
            skipped=step.skipped,
            loss_scale=float(step.scale) if step.scale is not None else nan,
            batch=step.batches[0].batch.index,
            epoch=step.batches[0].batch.epoch,
            seconds=step.seconds,
        )


def bytes_of(value: Any) -> int:
    """How much the tensors of a nested batch take."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, entry.name) for entry in fields(value)]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return sum(map(bytes_of, items))


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """L2 norm of each that has elements, in float32 at least."""
    try:
        return list(torch._foreach_norm(tensors, 2, torch.float32))
    except (RuntimeError, NotImplementedError):  # some are sparse, complex or float64
        values = [elements(tensor).double() for tensor in tensors]
        return [torch.linalg.vector_norm(value) for value in values if value.numel()]


def to_floats(numbers: list[Tensor]) -> list[float]:
    """Tensors of one element as numbers, by one transfer for each dtype and device."""
    together: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for index, number in enumerate(numbers):
        together.setdefault((number.dtype, number.device), []).append(index)
    floats = [nan] * len(numbers)
    for indices in together.values():
        for index, value in zip(indices, torch.stack([numbers[i] for i in indices]).tolist(), strict=True):
            floats[index] = value
    return floats
