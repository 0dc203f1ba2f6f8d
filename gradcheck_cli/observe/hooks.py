"""Torch's own hook points, as events: what every training loop passes through, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Protocol

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class Observer(Protocol):
    """Who wants to know. Called in the order in which a training step passes these points."""

    def before_backward(self, loss: torch.Tensor) -> None:
        """`backward` is about to be called on `loss`, which may be multiplied by the loss scale."""

    def after_backward(self, loss: torch.Tensor) -> None:
        """It has been called; some of the gradients are new."""

    def after_scale(self, loss: torch.Tensor, scaled: torch.Tensor) -> None:
        """A GradScaler made `scaled` of `loss`."""

    def after_unscale(self, scaler: GradScaler, optimizer: Optimizer) -> None:
        """The gradients of `optimizer` have been divided by the loss scale."""

    def before_clip(self, parameters: Sequence[torch.Tensor], max_norm: float | None) -> None:
        """The gradients of `parameters` are about to be clipped, at a norm that is known unless None."""

    def before_update(self, optimizer: Optimizer, has_closure: bool) -> None:
        """`optimizer.step` is about to run, with or without a closure that it calls for the gradients."""

    def after_update(self, optimizer: Optimizer) -> None:
        """`optimizer.step` has run."""

    def after_scaler_step(self, optimizer: Optimizer) -> None:
        """`GradScaler.step` has run, and `optimizer.step` inside it unless the step was skipped."""


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Report to `observer` for the length of the context; leaves nothing behind, whatever happens inside."""
    with ExitStack() as undo:
        for handle in (
            register_optimizer_step_pre_hook(lambda *call: observer.before_update(call[0], is_closed(*call[1:]))),
            register_optimizer_step_post_hook(lambda optimizer, *_: observer.after_update(optimizer)),
        ):
            undo.callback(handle.remove)
        undo.enter_context(patched(torch.autograd, "backward", lambda call: reporting_backward(call, observer)))
        for name in ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_"):
            for home in (torch.nn.utils, torch.nn.utils.clip_grad):
                if hasattr(home, name):
                    undo.enter_context(patched(home, name, lambda call: reporting_clip(call, observer)))
        undo.enter_context(patched(GradScaler, "scale", lambda call: reporting_scale(call, observer)))
        undo.enter_context(patched(GradScaler, "unscale_", lambda call: reporting_unscale(call, observer)))
        undo.enter_context(patched(GradScaler, "step", lambda call: reporting_scaler_step(call, observer)))
        yield


@contextmanager
def patched(home: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace `home.name` by `wrap(home.name)` for the length of the context."""
    original = getattr(home, name)
    setattr(home, name, wraps(original)(wrap(original)))
    try:
        yield
    finally:
        setattr(home, name, original)


def is_closed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `step` was called with a closure; torch gives the hook the optimizer among the arguments."""
    if len(args) == 1 and not kwargs:
        return False
    return kwargs.get("closure") is not None or any(callable(argument) for argument in args[1:])


def reporting_backward(call: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        losses = (tensors,) if isinstance(tensors, torch.Tensor) else tuple(tensors)
        for loss in losses:
            observer.before_backward(loss)
        result = call(losses, *args, **kwargs)
        for loss in losses:
            observer.after_backward(loss)
        return result

    return backward


def reporting_clip(call: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    by_norm = "norm" in call.__name__

    def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        given = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)  # it may be a generator
        limit = args[0] if args else kwargs.get("max_norm")
        # a tensor's value would be waited for
        observer.before_clip(given, float(limit) if by_norm and isinstance(limit, (int, float)) else None)
        # torch warns of a generator without elements
        return call((p for p in given) if isinstance(parameters, Generator) else given, *args, **kwargs)

    return clip


def reporting_scale(call: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    def scale(scaler: GradScaler, outputs: Any) -> Any:
        scaled = call(scaler, outputs)
        if scaler.is_enabled() and isinstance(outputs, torch.Tensor):
            observer.after_scale(outputs, scaled)
        return scaled

    return scale


def reporting_unscale(call: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    def unscale_(scaler: GradScaler, optimizer: Optimizer) -> None:
        call(scaler, optimizer)
        if scaler.is_enabled():
            observer.after_unscale(scaler, optimizer)

    return unscale_


def reporting_scaler_step(call: Callable[..., Any], observer: Observer) -> Callable[..., Any]:
    def step(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        result = call(scaler, optimizer, *args, **kwargs)
        observer.after_scaler_step(optimizer)
        return result

    return step
