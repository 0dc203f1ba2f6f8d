"""Trace steps of a script: begun and ended from within it, beside a session that watches the same script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch._ops import OpOverload
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.data import DataLoader, dataloader

from gradcheck_cli.observe.deliveries import Delivery, storages
from gradcheck_cli.observe.hooks import Observer, patched
from gradcheck_cli.observe.nan.frames import OWN, TORCH
from gradcheck_cli.observe.nan.tracer import Tracer

PASSED = tuple(os.path.join(OWN, "observe", name) for name in ("hooks.py", "session.py", "search.py"))
"""Ours, but on the way to the script's own calls."""
TRACE = getattr(Tracer.__torch_dispatch__, "__wrapped__", Tracer.__torch_dispatch__)
"""Without what torch puts around it: a line of torch's there would hide the user's."""


class ScriptTracer(Tracer):  # type: ignore[no-untyped-call]
    """Traces what the script does between `begin` and `end`, and nothing of what gradcheck does there."""

    _tracing = ExitStack()

    def begin(self, module: nn.Module | None = None) -> None:
        """Trace from here on; `module` is one whose call has just begun."""
        with ExitStack() as stack:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(self._sites.followed())
            stack.enter_context(self)
            self._tracing = stack.pop_all()
        if module is not None:
            self._sites._enter(module, ())

    def end(self) -> None:
        """Trace no more."""
        self._tracing.close()

    def begin_micro_batch(self, data: Any) -> None:
        """The next batch is on its way to the model; its tensors get names."""
        for _ in self.inspect([Delivery(-1, 0, data)]):
            pass

    def begin_update(self, optimizer: Optimizer) -> None:
        """A script that updates by hand has its gradients."""
        self._sinks.before_update(optimizer, False)

    def end_update(self, optimizer: Optimizer) -> None:
        """It has used them."""
        self._sinks.after_update(optimizer)

    @property
    def events(self) -> Observer:
        """Who is to hear of the step's events."""
        return self._sinks

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As for a workload; but the session's own measuring runs here, too."""
        if is_measuring():
            return func(*args, **(kwargs or {}))
        return TRACE(self, func, types, args, kwargs)


def is_measuring() -> bool:
    """Whether the operation that is called now is gradcheck's own: the innermost line outside torch tells."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((TORCH, "<")):
        frame = frame.f_back
    name = frame.f_code.co_filename
    return name.startswith(OWN) and not name.startswith(PASSED)


class Relay:
    """An observer that passes every event on to whoever listens at the time: hooks can't be added while they run."""

    def __init__(self) -> None:
        self.listener: Observer | None = None

    @property
    def observer(self) -> Observer:
        """The relay itself, which answers to every event of an Observer."""
        return cast("Observer", self)

    def __getattr__(self, event: str) -> Callable[..., None]:
        def tell(*facts: Any) -> None:
            if self.listener is not None:
                getattr(self.listener, event)(*facts)

        return tell


class LoadedBatch:
    """The newest batch of any data loader. What a loader does is no part of a step."""

    def __init__(self) -> None:
        self._data: Any = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note batches inside the context."""
        with (
            patched(dataloader._BaseDataLoaderIter, "__next__", self._noting),
            patched(DataLoader, "__iter__", untraced),  # which forks workers
        ):
            yield

    def holding(self, inputs: Any) -> Any:
        """The batch that the model's inputs are of, labels and all; the inputs where they are of none."""
        is_of_batch = storages(self._data) & storages(inputs) or not storages(inputs)
        return self._data if is_of_batch else inputs

    def _noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def deliver(loader: Any) -> Any:
            self._data = untraced(call)(loader)
            return self._data

        return deliver


def untraced(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, run outside all dispatch modes."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return call(*args, **kwargs)

    return run
