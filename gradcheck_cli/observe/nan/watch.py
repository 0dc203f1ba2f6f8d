"""Watch training steps for what is not finite, at almost no cost, and keep what it takes to run them again.

Nothing is asked of the device within a window of steps: norms of gradients pile up there, and one look at the end of
the window tells whether to look closer. The state at the window's begin, its batches and the random state before
each are kept, so that any of its steps can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from math import hypot, isfinite, isnan, nan
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from gradcheck_cli.observe.inputs import B
from gradcheck_cli.observe.nan.held import HeldBatch, HeldStep, SeenStep
from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.observe.nan.states import can_be_bad, elements, is_finite
from gradcheck_cli.observe.values import local

WINDOW = 128
WINDOW_SECONDS = 4.0
WINDOW_BYTES = 1 << 28
STICKY = (SGD, Adam, AdamW, RMSprop, Adagrad)
"""With these a NaN or an Inf in a gradient makes one in the parameter, for good: it cannot be missed there."""
SAMPLED = 8
"""With them, the norms of gradients are noted every so many steps only, for the series."""


class Watch:
    """See `hooks.Observer`. `clone` copies a batch's data. Those in `known_bad` are not looked at."""

    def __init__(self, model: nn.Module, clone: Callable[[Any], Any], known_bad: Collection[str]) -> None:
        self._model, self._clone, self._known_bad = model, clone, known_bad
        self._parameters = [p for name, p in model.named_parameters() if f"parameter:{name}" not in known_bad]
        self._on_host = all(parameter.device.type == "cpu" for parameter in self._parameters)
        self._unscaled: dict[int, tuple[Tensor, Tensor]] = {}
        self._buffers = [
            (module._buffers, key)
            for prefix, module in model.named_modules()
            for key, buffer in module._buffers.items()
            if buffer is not None
            and can_be_bad(buffer)
            and f"buffer:{prefix}.{key}".replace(":.", ":") not in known_bad
        ]
        self._sticky: dict[Optimizer, bool] = {}
        self._exact = self._noted = False
        self._number = 0
        self.loss = nan
        self.nan_gradient: int | None = None
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
            self.loss = self._current.losses[-1]  # type: ignore[assignment]
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
            loss = unscaled.detach()
            self._current.losses.append(loss.item() if self._on_host else loss.clone().reshape(()))

    def after_backward(self, loss: Tensor) -> None:
        pass

    def after_scale(self, loss: Tensor, scaled: Tensor) -> None:
        self._unscaled[id(scaled)] = (scaled, loss)

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        found = scaler._per_optimizer_states[id(optimizer)]["found_inf_per_device"].values()
        self._current.found_inf = sum(found, start=torch.zeros(()))
        self._current.scale = scaler._scale.clone()  # type: ignore[union-attr]

    def before_clip(self, parameters: Sequence[Tensor], max_norm: float | None) -> None:
        self._note_gradients()
        self._noted = True  # as they were before clipping

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        if not self._noted and (self._number % SAMPLED == 0 or not self._is_sticky(optimizer)):
            self._note_gradients()
        self._noted = False
        if buffers := [holder[key] for holder, key in self._buffers if holder.get(key) is not None]:
            self._current.buffers += self._sizes(buffers)
        rates = [group["lr"] for group in optimizer.param_groups]
        self._current.lr = [rate.detach().clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def _is_sticky(self, optimizer: Optimizer) -> bool:
        """Whether it carries every gradient that is not finite on to its parameter, where the window's end finds it."""
        if optimizer not in self._sticky:
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            own = (p for p in self._parameters if p.requires_grad)
            self._sticky[optimizer] = type(optimizer) in STICKY and all(id(parameter) in held for parameter in own)
        return self._sticky[optimizer]

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
            return norms([local(tensor) for tensor in tensors])

    @property
    def grad_norm(self) -> float:
        """The newest global gradient norm that can be had without waiting for the device; NaN before the first."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self._on_host and gradients:
            return hypot(*to_floats(self._sizes(gradients)))
        return self.history[-1].grad_norm if self.history else nan

    def look(self) -> str:
        """What in this window calls for a closer look: loss, state, gradient, norm, or "" for nothing.

        A norm may be infinite with every element finite; the others are certain. Adds to `history`.
        """
        numbers = iter(to_floats([n for step in self.steps for n in (*step.losses, *step.norms)]))
        new = [self._seen(step, numbers) for step in self.steps]
        self.history[self.steps[0].number :] = new
        self.loss = new[-1].loss
        if not all(isfinite(step.loss) for step in new):
            return "loss"
        state = self._state()
        sizes = [size for step in self.steps for size in step.buffers]
        if not all(map(isfinite, to_floats([*sizes, *self._sizes(state)]))):
            return "norm" if all(map(is_finite, state)) else "state"
        seen = zip(self.steps, new, strict=True)
        norms = {step.number: step.grad_norm for held, step in seen if held.norms and not step.skipped}
        self.nan_gradient = next((number for number, norm in norms.items() if isnan(norm)), None)
        if self.nan_gradient is not None:
            return "gradient"
        return "" if all(map(isfinite, norms.values())) else "norm"

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
            grad_norm=nan if not norms or any(map(isnan, norms)) else hypot(*norms),
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
        return value.nbytes
    if type(value) in (tuple, list):
        return sum([bytes_of(item) for item in value])
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


def to_floats(numbers: Sequence[Tensor | float]) -> list[float]:
    """Tensors of one element as numbers, by one transfer for each dtype and device; numbers as they are."""
    together: dict[tuple[torch.dtype, torch.device], dict[int, Tensor]] = {}
    floats = [nan] * len(numbers)
    for index, number in enumerate(numbers):
        if isinstance(number, Tensor):
            together.setdefault((number.dtype, number.device), {})[index] = number
        else:
            floats[index] = number
    for tensors in together.values():
        for index, value in zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True):
            floats[index] = value
    return floats
