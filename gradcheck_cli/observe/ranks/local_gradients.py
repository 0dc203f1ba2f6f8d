"""The gradient of one rank's own batches, caught before it is synchronised.

DDP puts the synchronised gradients in place when a backward pass ends: what is asked for right before that sees those
of this rank. FSDP2 hands the whole gradients of a group of parameters to one function, which scatters their sum.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.observe.hooks import patched
from gradcheck_cli.observe.numerics import Reducer
from gradcheck_cli.observe.transfer import Value
from gradcheck_cli.observe.values import local

FSDP = "torch.distributed.fsdp._fully_shard._fsdp_param_group"


class LocalGradients:
    """Between two calls of `take`: what this rank's gradient was when it was last synchronised, and how often it was.

    `measured` is a list of tables (parameters, 6), `unused` the indices of parameters without a gradient.
    """

    def __init__(self, parameters: Sequence[Tensor], reducer: Reducer) -> None:
        self._parameters, self._reducer = parameters, reducer
        self._trainable = [index for index, parameter in enumerate(parameters) if parameter.requires_grad]
        self._will_synchronise = self._can_look = self._scattered = False
        self._measured: list[Value] = []
        self._unused: tuple[int, ...] = ()
        self._syncs = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Look at the right moments for the length of the context."""
        with ExitStack() as stack:
            stack.enter_context(patched(DistributedDataParallel, "forward", self._noting_forward))
            if FSDP in sys.modules and hasattr(sys.modules[FSDP], "foreach_reduce"):
                stack.enter_context(patched(sys.modules[FSDP], "foreach_reduce", self._noting_scatter))
            yield

    def before_backward(self, loss: Tensor) -> None:
        """A backward pass begins."""
        self._scattered = False
        self._syncs += self._will_synchronise
        if self._will_synchronise and self._can_look and loss.requires_grad:
            loss.register_hook(self._ask)  # type: ignore[no-untyped-call]
        self._will_synchronise = False

    def take(self) -> tuple[list[Value], tuple[int, ...], int]:
        """Everything since the last time: tables, indices, number of synchronisations."""
        taken = self._measured, self._unused, self._syncs
        self._measured, self._unused, self._syncs = [], (), 0
        return taken

    def _noting_forward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():
                self._will_synchronise |= module.require_backward_grad_sync
                self._can_look = not module.gradient_as_bucket_view  # else they are summed up where they are
            return call(module, *args, **kwargs)

        return forward

    def _ask(self, gradient: Tensor) -> None:
        """Backward has just begun: be called at its end, before DDP is."""
        torch.autograd.Variable._execution_engine.queue_callback(self._look)

    def _look(self) -> None:
        found = [parameter.grad for parameter in self._parameters]
        self._unused = tuple(index for index in self._trainable if found[index] is None)
        present = [local(gradient) for gradient in found if gradient is not None]
        if present:
            with torch.no_grad():
                self._measured = [self._reducer.measure(present)]

    def _noting_scatter(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def foreach_reduce(parameters: Any, gradients: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._scattered:
                self._scattered, self._measured = True, []
                self._syncs += 1
            with torch.no_grad():
                self._measured.append(self._reducer.measure(gradients))
            return call(parameters, gradients, *args, **kwargs)

        return foreach_reduce
