"""Torch's own functions, wrapped so that an auditor hears of every call; the context takes all wrappers off again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import GeneratorType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradcheck_cli.observe.hooks import patched

Call = Callable[..., Any]
CLIPS = {"clip_grad_norm_": "clip-norm", "clip_grads_with_norm_": "clip-norm", "clip_grad_value_": "clip-value"}


class Listener(Protocol):
    """Each method gets the call that it is about, makes it, and returns what it returned."""

    def on_made(self, optimizer: Optimizer) -> None: ...
    def on_backward(self, run: Call, losses: Any, gradient: Any, retains: bool) -> Any: ...
    def on_zero(self, run: Call) -> Any: ...
    def on_clip(self, run: Call, kind: str, parameters: list[Tensor], limit: float | Tensor) -> Any: ...
    def on_scale(self, scaler: GradScaler, scaled: Any) -> None: ...
    def on_unscale(self, run: Call, scaler: GradScaler, optimizer: Optimizer) -> Any: ...
    def on_scaler_step(self, run: Call, scaler: GradScaler, optimizer: Optimizer) -> Any: ...
    def before_step(self, optimizer: Optimizer, *call: Any) -> None: ...
    def after_step(self, optimizer: Optimizer, *call: Any) -> None: ...
    def on_scheduler(self, run: Call, scheduler: LRScheduler) -> Any: ...
    def on_mode(self, run: Call, module: nn.Module, training: bool) -> Any: ...
    def on_nan_to_num(self, tensor: Tensor) -> None: ...


@contextmanager
def audited(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every call for the length of the context; leaves nothing behind, whatever happens inside."""
    with ExitStack() as undo:
        for handle in (
            register_optimizer_step_pre_hook(listener.before_step),
            register_optimizer_step_post_hook(listener.after_step),
        ):
            undo.callback(handle.remove)
        for home, name, wrap in homes(listener):
            undo.enter_context(replaced(home, name, wrap))
        yield


def homes(listener: Listener) -> Iterator[tuple[Any, str, Callable[[Call], Call]]]:
    """Where each function lives, its name, and what wraps it."""
    yield torch.autograd, "backward", lambda call: around_backward(call, listener)
    yield Optimizer, "__init__", lambda call: around_init(call, listener)
    yield Optimizer, "zero_grad", lambda call: around_zero(call, listener)
    yield nn.Module, "zero_grad", lambda call: around_zero(call, listener)
    yield nn.Module, "train", lambda call: around_train(call, listener)
    for name in CLIPS:
        for module in (torch.nn.utils, torch.nn.utils.clip_grad):
            if hasattr(module, name):
                yield module, name, lambda call: around_clip(call, listener)
    for scaler in family(GradScaler):
        yield from own(scaler, "scale", lambda call: around_scale(call, listener))
        yield from own(scaler, "unscale_", lambda call: around_scaler(call, listener.on_unscale))
        yield from own(scaler, "step", lambda call: around_scaler(call, listener.on_scaler_step))
    for scheduler in family(LRScheduler):
        yield from own(scheduler, "step", lambda call: around_scheduler(call, listener))
    for name in ("nan_to_num", "nan_to_num_"):
        yield torch, name, lambda call: around_nan_to_num(call, listener)
        yield Tensor, name, lambda call: around_nan_to_num(call, listener)


def own(kind: type[Any], name: str, wrap: Callable[[Call], Call]) -> Iterator[tuple[Any, str, Callable[[Call], Call]]]:
    """A method, if the class itself defines it."""
    if name in vars(kind):
        yield kind, name, wrap


def family(kind: type[Any]) -> Iterator[type[Any]]:
    """A class and all its subclasses that there are."""
    yield kind
    for one in kind.__subclasses__():
        yield from family(one)


@contextmanager
def replaced(home: Any, name: str, wrap: Callable[[Call], Call]) -> Iterator[None]:
    """`patched`, that takes an inherited method's wrapper away altogether."""
    if not inspect.isclass(home) or name in vars(home):
        with patched(home, name, wrap):
            yield
        return
    inherited = getattr(home, name)
    setattr(home, name, wraps(inherited)(wrap(inherited)))
    try:
        yield
    finally:
        delattr(home, name)


def around_backward(call: Call, listener: Listener) -> Call:
    def backward(
        tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        given = tensors if isinstance(tensors, Tensor) else tuple(tensors)  # it may be a generator
        run = partial(call, given, grad_tensors, retain_graph, *args, **kwargs)
        if torch._C._current_graph_task_id() != -1:  # gradient checkpointing, inside a backward
            return run()
        return listener.on_backward(run, given, grad_tensors, bool(retain_graph))

    return backward


def around_init(call: Call, listener: Listener) -> Call:
    def __init__(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        call(optimizer, *args, **kwargs)
        listener.on_made(optimizer)

    return __init__


def around_zero(call: Call, listener: Listener) -> Call:
    def zero_grad(owner: Any, *args: Any, **kwargs: Any) -> Any:
        return listener.on_zero(partial(call, owner, *args, **kwargs))

    return zero_grad


def around_train(call: Call, listener: Listener) -> Call:
    def train(module: nn.Module, mode: bool = True) -> Any:
        return listener.on_mode(partial(call, module, mode), module, mode)

    return train


def around_clip(call: Call, listener: Listener) -> Call:
    signature, kind = inspect.signature(call), CLIPS[call.__name__.lstrip("_")]

    def clip(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        parameters = given["parameters"]
        tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        # The function warns of an empty generator: a used one has to remain one.
        given["parameters"] = (p for p in tensors) if isinstance(parameters, GeneratorType) else tensors
        limit = given["max_norm" if kind == "clip-norm" else "clip_value"]
        return listener.on_clip(partial(call, **given), kind, tensors, limit)

    return clip


def around_scale(call: Call, listener: Listener) -> Call:
    def scale(scaler: GradScaler, outputs: Any) -> Any:
        scaled = call(scaler, outputs)
        if scaler.is_enabled():
            listener.on_scale(scaler, scaled)
        return scaled

    return scale


def around_scaler(call: Call, tell: Call) -> Call:
    def method(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if not scaler.is_enabled():
            return call(scaler, optimizer, *args, **kwargs)
        return tell(partial(call, scaler, optimizer, *args, **kwargs), scaler, optimizer)

    return method


def around_scheduler(call: Call, listener: Listener) -> Call:
    def step(scheduler: LRScheduler, *args: Any, **kwargs: Any) -> Any:
        return listener.on_scheduler(partial(call, scheduler, *args, **kwargs), scheduler)

    return step


def around_nan_to_num(call: Call, listener: Listener) -> Call:
    def nan_to_num(*args: Any, **kwargs: Any) -> Any:
        tensor = args[0] if args else kwargs.get("input")
        if not torch.compiler.is_compiling() and type(tensor) is Tensor:
            listener.on_nan_to_num(tensor)
        return call(*args, **kwargs)

    return nan_to_num
