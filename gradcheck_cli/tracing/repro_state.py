"""What step.pt holds: everything that the failing step starts from, and its batches."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradcheck_cli.config import Settings
from gradcheck_cli.observe.nan.held import HeldBatch
from gradcheck_cli.observe.nan.snapshot import NOT_ATTRIBUTES
from gradcheck_cli.tape import NanTrace, Sink
from gradcheck_cli.tracing.fault import Fault
from gradcheck_cli.tracing.plain import to_plain
from gradcheck_cli.tracing.session import Session

LONG = 64
Attributes = Mapping[int, Mapping[str, Any]]
SETTINGS = ("seed", "set", "optimizer", "clip", "eval", "accumulate", "checkpoint")


@dataclass(frozen=True)
class Saved:
    """The content of step.pt in types that `weights_only` loads, and in words what could not be put there."""

    content: dict[str, Any]
    lost: tuple[str, ...]

    @property
    def contents(self) -> str:
        """What is in it, in words."""
        tensors = [kept[part] for kept in self.content["modules"].values() for part in ("parameters", "buffers")]
        number = len(self.content["batches"])
        parts = [
            f"{sum(map(len, tensors))} parameters and buffers",
            "the optimizer's state" if self.content["optimizers"] else "",
            "the loss scale" if self.content["scaler"] else "",
            f"{number} micro-batches" if number > 1 else "the batch",
            "the random states of torch, NumPy and Python",
            "the settings of the run",
        ]
        return ", ".join(filter(None, parts))


def attributes_of(session: Session) -> Attributes:
    """The counters and flags of each module and optimizer, by its id, copied."""
    owners = [*(module for root in roots_of(session).values() for module in root.modules()), *session.optimizers]
    return {id(owner): {key: copied(to_plain(value, key, [])) for key, value in attributes(owner)} for owner in owners}


def save_state(fault: Fault, trace: NanTrace, settings: Settings, at_start: Attributes) -> Saved:
    """Rewind to before the failing step and gather it. `at_start` are the attributes that the entrypoint gave."""
    lost: list[str] = []
    session = fault.session
    fault.before.restore()
    content = {
        "step": fault.step.number,
        "found": [describe(sink) for sink in trace.sinks if sink.what != "error"],
        "error": trace.error,
        "ignored": sorted(name.replace(":", " ") for name in session.known_bad),
        "settings": {**settings_of(settings, lost), "precision": session.loop.precision},
        "modules": {name: state_of_module(root, name, at_start, lost) for name, root in roots_of(session).items()},
        "optimizers": {
            number: state_of_optimizer(optimizer, session, at_start, lost) for number, optimizer in numbered(session)
        },
        "scaler": session.scaler.state_dict(),
    }
    batches = [batch_of(held, number, lost) for number, held in enumerate(fault.step.batches)]
    return Saved({**content, "batches": batches}, tuple(dict.fromkeys(lost)))


def settings_of(settings: Settings, lost: list[str]) -> dict[str, Any]:
    """Those that decide how a step runs."""
    return {name: to_plain(getattr(settings, name), f"--{name}", lost) for name in SETTINGS}


def describe(sink: Sink) -> str:
    """`gradient fc.weight`, as repro.py prints it."""
    return f"{sink.what} {sink.name}".strip()


def roots_of(session: Session) -> dict[str, nn.Module]:
    """The model, a criterion that is a module, and modules that only the training step knows, by a number."""
    model, criterion = session.workload.model, session.workload.loss_fn
    roots = {"model": model}
    if isinstance(criterion, nn.Module):
        roots["loss_fn"] = criterion
    known = {id(module) for root in roots.values() for module in root.modules()}
    others = {number: module for number, module in session.births.numbered_modules() if id(module) not in known}
    inner = {id(child) for module in others.values() for child in module.modules() if child is not module}
    return {**roots, **{str(n): module for n, module in others.items() if id(module) not in inner}}


def numbered(session: Session) -> Iterator[tuple[str, Optimizer]]:
    """The optimizer that is driven, as "", and others, by a number."""
    if session.workload.has_optimizer:
        yield "", session.workload.optimizer
    for number, optimizer in session.births.numbered_optimizers():
        if optimizer is not session.workload.optimizer:
            yield str(number), optimizer


def state_of_module(root: nn.Module, name: str, at_start: Attributes, lost: list[str]) -> dict[str, Any]:
    """Parameters, buffers and changed attributes; gradients where the step does not begin by dropping them."""
    parameters = dict(root.named_parameters())
    left = {} if name == "model" else parameters
    return {
        "parameters": {key: parameter.detach() for key, parameter in parameters.items()},
        "gradients": {key: parameter.grad for key, parameter in left.items() if parameter.grad is not None},
        "buffers": {key: buffer.detach() for key, buffer in root.named_buffers()},
        "attributes": {
            key: changed
            for key, module in root.named_modules()
            if (changed := changes(module, at_start, f"{name}.{key}", lost))
        },
    }


def state_of_optimizer(optimizer: Optimizer, session: Session, at_start: Attributes, lost: list[str]) -> dict[str, Any]:
    """State and hyperparameters, and parameters that are in no module."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known = {id(parameter) for root in roots_of(session).values() for parameter in root.parameters()}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    state = {number: optimizer.state[p] for number, p in enumerate(parameters) if p in optimizer.state}
    return {
        "groups": to_plain(groups, "optimizer.param_groups", lost),
        "state": to_plain({number: dict(values) for number, values in state.items()}, "optimizer.state", lost),
        "parameters": {number: p.detach() for number, p in enumerate(parameters) if id(p) not in known},
        "attributes": changes(optimizer, at_start, type(optimizer).__name__, lost),
    }


def changes(owner: Any, at_start: Attributes, name: str, lost: list[str]) -> dict[str, Any]:
    """The attributes that are not what they were at the start."""
    before = at_start.get(id(owner), {})
    now = {key: to_plain(value, f"{name}.{key}", lost) for key, value in attributes(owner)}
    return {key: value for key, value in now.items() if not (key in before and is_same(value, before[key]))}


def attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    """Counters, flags, running values: plain attributes that are neither parameter nor buffer nor part of a graph."""
    for key, value in vars(owner).items():
        if key not in NOT_ATTRIBUTES and is_state(value):
            yield key, value


def is_state(value: Any) -> bool:
    """Whether an attribute can be kept: a vocabulary is too long to change, parameters are kept as such."""
    if type(value) in (list, tuple, dict, set, deque):
        return len(value) <= LONG and all(map(is_state, value.values() if isinstance(value, dict) else value))
    if isinstance(value, Tensor):
        return type(value) is Tensor and not value.requires_grad
    return type(value) in (type(None), bool, int, float, complex, str, bytes, np.ndarray)


def copied(value: Any) -> Any:
    """A copy of a plain value that later changes do not reach."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, (tuple, list)) else value


def is_same(value: Any, before: Any) -> bool:
    """Whether a plain value has the same content as a copy of it; a NaN is not the same."""
    if isinstance(value, Tensor):
        return isinstance(before, Tensor) and value.shape == before.shape and torch.equal(value, before)
    if isinstance(value, (tuple, list)):
        return isinstance(before, list) and len(value) == len(before) and all(map(is_same, value, before))
    if isinstance(value, dict):
        same_keys = isinstance(before, dict) and value.keys() == before.keys()
        return same_keys and all(is_same(item, before[key]) for key, item in value.items())
    return type(value) is type(before) and bool(value == before)


def batch_of(held: HeldBatch, number: int, lost: list[str]) -> dict[str, Any]:
    """A batch and the random state before its forward pass."""
    held.random.restore()
    return {"data": to_plain(held.batch.data, f"batches[{number}]", lost), "random": random_state()}


def random_state() -> dict[str, Any]:
    """The present state of the global generators; None for a NumPy generator that is not the usual one."""
    state: Any = np.random.get_state()
    usual = isinstance(state, tuple) and state[0] == "MT19937"
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (state[0], torch.from_numpy(state[1].astype(np.int64)), *map(to_number, state[2:])) if usual else None,
        "python": random.getstate(),
    }


def to_number(value: Any) -> Any:
    """Without NumPy's own number types."""
    return value.item() if isinstance(value, np.generic) else value
