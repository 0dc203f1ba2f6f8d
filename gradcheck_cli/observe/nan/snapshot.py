"""Everything that a training step changes, kept and put back."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from gradcheck_cli.observe.nan.kept import keep_value, kept_value, write
from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.observe.nan.surroundings import Surroundings
from gradcheck_cli.observe.values import local

REGISTRIES = ("_parameters", "_buffers", "_modules")
NOT_ATTRIBUTES = (frozenset(vars(nn.Module())) - {"training"}) | {"param_groups", "state"}
SCALER = ("_scale", "_growth_tracker", "_init_scale")


class Snapshot:
    """The state of modules, optimizers, schedulers and a scaler, and of what surrounds functions of the user's.

    Taking it again uses the same memory.
    """

    def __init__(
        self,
        modules: list[nn.Module],
        optimizers: list[Optimizer],
        schedulers: Sequence[Any] | None,
        scaler: GradScaler,
        functions: Sequence[Any] = (),
    ) -> None:
        self._functions = functions
        self._modules = list({id(module): module for root in modules for module in root.modules()}.values())
        self._optimizers, self._schedulers, self._scaler = optimizers, schedulers or (), scaler
        self._copies: list[Tensor] = []
        self.take()

    def take(self) -> None:
        """Keep the present state."""
        self._trained = self._parameters()
        self._live = [*(parameter.detach() for parameter in self._trained), *self._all_buffers()]
        self._copies = copied([local(live) for live in self._live], self._copies)
        self._gradients = [(p, None if p.grad is None else p.grad.clone()) for p in self._trained]
        self._requires_grad = [parameter.requires_grad for parameter in self._trained]
        self._registries = [{name: dict(vars(module)[name]) for name in REGISTRIES} for module in self._modules]
        self._attributes = [kept_attributes(owner) for owner in self._owners()]
        self._state = [{p: keep_value(state) for p, state in one.state.items()} for one in self._optimizers]
        self._groups = [[kept_group(group) for group in one.param_groups] for one in self._optimizers]
        self._schedules = [scheduler_state(scheduler) for scheduler in self._schedulers]
        self._scale = {key: keep_value(getattr(self._scaler, key)) for key in SCALER if self._scaler.is_enabled()}
        self._surroundings = Surroundings(self._functions)
        self._random = RandomState()

    @torch.no_grad()
    def restore(self, resume: bool = False) -> None:
        """Put the kept state back; see `Surroundings.restore` for `resume`."""
        for module, registries in zip(self._modules, self._registries, strict=True):
            for name, entries in registries.items():
                if isinstance(vars(module)[name], dict):  # else a compiled script's, which are fixed
                    vars(module)[name].clear()
                    vars(module)[name].update(entries)
        for owner, attributes in zip(self._owners(), self._attributes, strict=True):
            restore_attributes(owner, attributes)
        for parameter, live in zip(self._trained, self._live, strict=False):
            parameter.data = live  # the step may have put another tensor there
        for live, kept in zip(self._live, self._copies, strict=True):
            write(local(live), kept)
        for (parameter, gradient), flag in zip(self._gradients, self._requires_grad, strict=True):
            parameter.requires_grad_(flag).grad = None if gradient is None else gradient.clone()
        for optimizer, states in zip(self._optimizers, self._state, strict=True):
            optimizer.state.clear()
            optimizer.state.update({p: kept_value(state) for p, state in states.items()})
        for optimizer, groups in zip(self._optimizers, self._groups, strict=True):
            optimizer.param_groups[:] = [restored_group(*kept) for kept in groups]
        for scheduler, schedule in zip(self._schedulers, self._schedules, strict=True):
            if schedule is not None:
                scheduler.load_state_dict(copy.deepcopy(schedule))
        for key, value in self._scale.items():
            setattr(self._scaler, key, kept_value(value))
        self._scaler._per_optimizer_states = defaultdict(torch.amp.grad_scaler._refresh_per_optimizer_state)
        self._surroundings.restore(resume)
        self._random.restore()

    def _parameters(self) -> list[nn.Parameter]:
        own = {id(p): p for module in self._modules for p in module._parameters.values() if p is not None}
        stepped = {id(p): p for one in self._optimizers for group in one.param_groups for p in group["params"]}
        return list({**own, **stepped}.values())

    def _all_buffers(self) -> list[Tensor]:
        buffers = {id(b): b for module in self._modules for b in module._buffers.values() if b is not None}
        return list(buffers.values())

    def _owners(self) -> list[Any]:
        return [*self._modules, *self._optimizers]


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
    """An object's attributes: counters, flags, containers, tensors that are neither parameter nor buffer."""
    return {key: keep_value(value) for key, value in vars(owner).items() if key not in NOT_ATTRIBUTES}


def restore_attributes(owner: Any, attributes: dict[str, Any]) -> None:
    """Put them back; those that came later go."""
    for key in vars(owner).keys() - attributes.keys() - NOT_ATTRIBUTES:
        del vars(owner)[key]
    vars(owner).update({key: kept_value(value) for key, value in attributes.items()})


def kept_group(group: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A group of an optimizer, and what is in it; its parameters have been kept already."""
    return group, {key: list(value) if key == "params" else keep_value(value) for key, value in group.items()}


def restored_group(group: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The same group, as it was."""
    group["params"][:] = kept["params"]
    group.update({key: kept_value(value) for key, value in kept.items() if key != "params"})
    return group


def scheduler_state(scheduler: Any) -> Any:
    """What a scheduler's own state_dict has, or None."""
    return copy.deepcopy(scheduler.state_dict()) if hasattr(scheduler, "state_dict") else None
