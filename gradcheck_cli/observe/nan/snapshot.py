"""Everything that a training step changes, kept and put back."""

from __future__ import annotations

import copy
import ctypes
import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

PLAIN = (int, float, complex, str, bytes, type(None))
NOT_ATTRIBUTES = frozenset({"_parameters", "_buffers", "_modules", "param_groups", "state"})
MT19937_BYTES = 625 * 4
LONG = 64
SCALER = ("_scale", "_growth_tracker", "_init_scale")


class RandomState:
    """The state of torch's, NumPy's and Python's global generators."""

    _numpy_memory: bytes = b""
    _numpy_state: Any = None

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        self._numpy = self._read_numpy()
        self._python = random.getstate()

    def restore(self) -> None:
        """Draw from here on what was drawn then."""
        torch.set_rng_state(self._torch)
        for number, state in enumerate(self._cuda):
            torch.cuda.set_rng_state(state, number)
        np.random.set_state(self._numpy)
        random.setstate(self._python)

    @classmethod
    def _read_numpy(cls) -> Any:
        """NumPy builds its state anew on every call, which takes longer than a small step: asked only after a draw."""
        generator = np.random.mtrand._rand._bit_generator
        if type(generator).__name__ != "MT19937":
            return np.random.get_state()
        memory = ctypes.string_at(generator.ctypes.state_address, MT19937_BYTES)
        if memory != cls._numpy_memory or cls._numpy_state is None:
            cls._numpy_memory, cls._numpy_state = memory, np.random.get_state()
        return cls._numpy_state


class KeptTensor:
    """A tensor and its values: others may share its memory, so it stays the same one. In a graph it is not copied."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._values = tensor.detach().clone() if tensor.grad_fn is None else None

    def restore(self) -> Tensor:
        """The same tensor with its old values; to be called without gradients being recorded."""
        if self._values is not None:
            self._tensor.detach().copy_(self._values)
        return self._tensor


class Snapshot:
    """The state of a model, its optimizers, scheduler and scaler. Taking it again uses the same memory."""

    def __init__(
        self, modules: list[nn.Module], optimizers: list[Optimizer], scheduler: Any, scaler: GradScaler
    ) -> None:
        self._modules = list({id(module): module for root in modules for module in root.modules()}.values())
        self._optimizers, self._scheduler, self._scaler = optimizers, scheduler, scaler
        self._copies: list[Tensor] = []
        self.take()

    def take(self) -> None:
        """Keep the present state."""
        self._live = self._tensors()
        self._copies = copied(self._live, self._copies)
        self._gradients = [(p, None if p.grad is None else p.grad.clone()) for p in self._parameters()]
        self._buffers = [dict(module._buffers) for module in self._modules]
        self._attributes = [kept_attributes(owner) for owner in self._owners()]
        self._state = [{p: keep_value(state) for p, state in one.state.items()} for one in self._optimizers]
        self._groups = [{k: keep_value(v) for k, v in group.items() if k != "params"} for group in self._all_groups()]
        self._schedule = scheduler_state(self._scheduler)
        self._scale = {key: keep_value(getattr(self._scaler, key)) for key in SCALER if self._scaler.is_enabled()}
        self._random = RandomState()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the kept state back."""
        for module, buffers in zip(self._modules, self._buffers, strict=True):
            module._buffers.clear()
            module._buffers.update(buffers)
        for owner, attributes in zip(self._owners(), self._attributes, strict=True):
            vars(owner).update({key: kept_value(value) for key, value in attributes.items()})
        for live, kept in zip(self._live, self._copies, strict=True):
            live.copy_(kept)
        for parameter, gradient in self._gradients:
            parameter.grad = None if gradient is None else gradient.clone()
        for optimizer, states in zip(self._optimizers, self._state, strict=True):
            optimizer.state.clear()
            optimizer.state.update({p: kept_value(state) for p, state in states.items()})
        for group, kept_group in zip(self._all_groups(), self._groups, strict=True):
            group.update({key: kept_value(value) for key, value in kept_group.items()})
        if self._schedule is not None:
            self._scheduler.load_state_dict(copy.deepcopy(self._schedule))
        for key, value in self._scale.items():
            setattr(self._scaler, key, kept_value(value))
        self._scaler._per_optimizer_states = defaultdict(torch.amp.grad_scaler._refresh_per_optimizer_state)
        self._random.restore()

    def _parameters(self) -> list[nn.Parameter]:
        own = {id(p): p for module in self._modules for p in module._parameters.values() if p is not None}
        stepped = {id(p): p for group in self._all_groups() for p in group["params"]}
        return list({**own, **stepped}.values())

    def _tensors(self) -> list[Tensor]:
        buffers = {id(b): b for module in self._modules for b in module._buffers.values() if b is not None}
        return [*(parameter.detach() for parameter in self._parameters()), *buffers.values()]

    def _owners(self) -> list[Any]:
        return [*self._modules, *self._optimizers]

    def _all_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]


def copied(tensors: list[Tensor], into: list[Tensor]) -> list[Tensor]:
    """Copies, in the memory of `into` where the shapes are the same."""
    same = len(tensors) == len(into) and all(
        (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) for a, b in zip(tensors, into, strict=True)
    )
    if not same:
        return [tensor.detach().clone() for tensor in tensors]
    torch._foreach_copy_(into, [tensor.detach() for tensor in tensors])
    return into


def kept_attributes(owner: Any) -> dict[str, Any]:
    """The plain values among an object's attributes: counters, flags, tensors that are neither parameter nor buffer."""
    kept = {}
    for key, value in vars(owner).items():
        if key not in NOT_ATTRIBUTES and is_plain(value):
            kept[key] = keep_value(value)
    return kept


def is_plain(value: Any) -> bool:
    """Whether a value can be copied without side effects, and quickly: a vocabulary is none."""
    if isinstance(value, (tuple, list)) or type(value) is dict:
        return len(value) <= LONG and all(map(is_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (*PLAIN, Tensor))


def keep_value(value: Any) -> Any:
    """A value from which `kept_value` can restore it."""
    if isinstance(value, Tensor):
        return KeptTensor(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)._make(keep_value(item) for item in value)  # type: ignore[attr-defined]
    if isinstance(value, (tuple, list)):
        return type(value)(keep_value(item) for item in value)
    if isinstance(value, Mapping):
        return {key: keep_value(item) for key, item in value.items()}
    return value


def kept_value(value: Any) -> Any:
    """What was kept, with the same tensors as then in the state of then."""
    if isinstance(value, KeptTensor):
        return value.restore()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)._make(kept_value(item) for item in value)  # type: ignore[attr-defined]
    if isinstance(value, (tuple, list)):
        return type(value)(kept_value(item) for item in value)
    if isinstance(value, Mapping):
        return {key: kept_value(item) for key, item in value.items()}
    return value


def scheduler_state(scheduler: Any) -> Any:
    """What a scheduler's own state_dict has, or None."""
    if scheduler is None or not hasattr(scheduler, "state_dict"):
        return None
    return copy.deepcopy(scheduler.state_dict())
