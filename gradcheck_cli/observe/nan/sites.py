"""Where in a training step an operation runs: phase, micro-batch, module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class Sites:
    """Follows a step; `names` gives the modules of the model their names, by identity."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._stack: list[tuple[str | None, str]] = []
        self._called = self._root_called = False
        self._outside = "forward"
        self.micro_batch = -1

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow the modules' calls."""
        with ExitStack() as undo:
            undo.callback(register_module_forward_pre_hook(self._enter).remove)
            undo.callback(register_module_forward_hook(self._leave, always_call=True).remove)
            yield

    def begin_micro_batch(self) -> None:
        """The next batch is on its way to the model."""
        self.micro_batch += 1
        self._called = self._root_called = False
        self._outside = "forward"

    def begin(self, phase: str) -> None:
        """What runs now outside a forward or backward pass: loss, clip or optimizer."""
        self._outside = phase

    @property
    def in_backward(self) -> bool:
        """Whether the autograd engine is at work."""
        return torch._C._current_graph_task_id() != -1

    @property
    def phase(self) -> str:
        """One of tape.PHASES."""
        if self.in_backward:
            return "backward"
        if self._outside in ("clip", "optimizer"):
            return self._outside
        names = [name for name, _ in self._stack if name is not None]
        in_model = "" in names or (names and not self._root_called)  # a criterion may be a module of the model
        return "forward" if in_model or not self._called else "loss"

    @property
    def module(self) -> tuple[str, str]:
        """Name and type of the innermost module of the model, or two empty strings."""
        return next(((name, kind) for name, kind in reversed(self._stack) if name is not None), ("", ""))

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._stack.append((self._names.get(id(module)), type(module).__name__))
        self._called = self._called or id(module) in self._names
        self._root_called = self._root_called or self._names.get(id(module)) == ""

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()
