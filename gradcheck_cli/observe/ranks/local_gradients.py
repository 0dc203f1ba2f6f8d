"""The gradient of one rank's own batches, caught before it is synchronised.

DDP puts the synchronised gradients in place when a backward pass ends: what is asked for right before that sees those
of this rank. FSDP2 hands the whole gradients of a group of parameters to one function, which scatters their sum.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.hooks import patched
from gradcheck_cli.observe.naming import clean
from gradcheck_cli.observe.numerics import Reducer
from gradcheck_cli.observe.transfer import Value
from gradcheck_cli.observe.values import local

FSDP = "torch.distributed.fsdp._fully_shard._fsdp_param_group"


class UnusedParameterError(GradcheckError):
    """This rank did not use a parameter whose gradient the others wait for."""


class Unfinished:
    """Tells whether a backward leaves DDP waiting for gradients, from what is there before and after it."""

    def __init__(self, module: DistributedDataParallel) -> None:
        ignored = module.parameters_to_ignore
        named = [(name, one) for name, one in module.module.named_parameters() if name not in ignored]
        self._module = module
        self._named = [(clean(name), parameter) for name, parameter in named if parameter.requires_grad]
        self._before: list[tuple[Tensor | None, int]] = []

    def begin(self) -> None:
        """A backward begins."""
        if not self._module.find_unused_parameters and not self._module.static_graph:
            self._before = self._stamps()

    def check(self) -> None:
        """It has run. Raises UnusedParameterError if it has reached some parameters and others not."""
        pairs = list(zip(self._before, self._stamps(), strict=True)) if self._before else []
        self._before = []
        missing = [before[0] is after[0] and before[1] == after[1] for before, after in pairs]
        if any(missing) and not all(missing):  # of all, another model's backward
            raise unused([name for (name, _), is_missing in zip(self._named, missing, strict=True) if is_missing])

    def _stamps(self) -> list[tuple[Tensor | None, int]]:
        """What changes when a gradient does."""
        found = [parameter.grad for _, parameter in self._named]
        return [(gradient, -1 if gradient is None else gradient._version) for gradient in found]


def unused(names: Sequence[str]) -> UnusedParameterError:
    """The error for parameters of these names."""
    rank, more = torch.distributed.get_rank(), f" and {len(names) - 1} more" if len(names) > 1 else ""
    return UnusedParameterError(
        f"rank {rank} did not use {names[0]}{more}, and DDP waits for every gradient on every rank:"
        " without this error all would hang (GC705 unused-on-some-ranks)",
        "DistributedDataParallel(..., find_unused_parameters=True) does not wait for them; or let every rank use every"
        " parameter",
    )


class LocalGradients:
    """Between two calls of `take`: what this rank's gradient was when it was last synchronised, and how often it was.

    `modules` are those that synchronise, `is_whole` says whether each rank has whole gradients; `begins` hears of each
    backward before it runs. `seconds` counts what looking took. A backward that would make other ranks wait for ever
    raises UnusedParameterError.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        modules: Sequence[nn.Module],
        reducer: Reducer,
        is_whole: bool,
        begins: Callable[[], None],
    ) -> None:
        self._parameters, self._reducer, self._is_whole, self._begins = parameters, reducer, is_whole, begins
        self._modules = {id(module) for module in modules}
        self._unfinished = [Unfinished(one) for one in modules if isinstance(one, DistributedDataParallel)]
        self._own = {id(parameter) for parameter in parameters}
        self.seconds = 0.0
        self._trainable = [index for index, parameter in enumerate(parameters) if parameter.requires_grad]
        self._will_synchronise = self._can_look = self._scattered = False
        self._measured: list[Value] = []
        self._unused: tuple[int, ...] = ()
        self._syncs = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Look at the right moments for the length of the context."""
        with ExitStack() as stack:
            stack.enter_context(patched(torch.autograd, "backward", self._noting_backward))
            stack.enter_context(patched(DistributedDataParallel, "forward", self._noting_forward))
            if FSDP in sys.modules and hasattr(sys.modules[FSDP], "foreach_reduce"):
                stack.enter_context(patched(sys.modules[FSDP], "foreach_reduce", self._noting_scatter))
            yield

    def take(self) -> tuple[list[Value], tuple[int, ...], int]:
        """Everything since the last time.

        Tables (parameters, 6), indices of parameters without a gradient, how often gradients were synchronised.
        """
        taken = self._measured, self._unused, self._syncs
        self._measured, self._unused, self._syncs = [], (), 0
        return taken

    def _noting_backward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if torch._C._current_graph_task_id() == -1:  # else gradient checkpointing, inside a backward
                losses = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
                self._begin(losses[0])
                return call(losses, *args, **kwargs)
            return call(tensors, *args, **kwargs)

        return backward

    def _begin(self, loss: Tensor) -> None:
        self._begins()
        self._scattered = False
        self._syncs += self._will_synchronise
        if self._will_synchronise and loss.requires_grad:
            loss.register_hook(self._ask)  # type: ignore[no-untyped-call]
        self._will_synchronise = False

    def _noting_forward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled() and id(module) in self._modules:
                self._will_synchronise |= module.require_backward_grad_sync
                # in a view of a bucket they are summed up where they are
                self._can_look = self._is_whole and not module.gradient_as_bucket_view
            return call(module, *args, **kwargs)

        return forward

    def _ask(self, gradient: Tensor) -> None:
        """Backward has just begun: be called at its end, before DDP is."""
        began = perf_counter()
        for one in self._unfinished:
            one.begin()
        torch.autograd.Variable._execution_engine.queue_callback(self._look)
        self.seconds += perf_counter() - began

    def _look(self) -> None:
        began = perf_counter()
        for one in self._unfinished:
            one.check()
        found = [parameter.grad for parameter in self._parameters]
        self._unused = tuple(index for index in self._trainable if found[index] is None)
        present = [local(gradient) for gradient in found if gradient is not None]
        if present and self._can_look:
            with torch.no_grad():
                self._measured = [self._reducer.measure(present)]
        self.seconds += perf_counter() - began

    def _noting_scatter(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def foreach_reduce(parameters: Any, gradients: Any, *args: Any, **kwargs: Any) -> Any:
            if all(id(parameter.sharded_param) in self._own for parameter in parameters):
                self._look_at(gradients)
            return call(parameters, gradients, *args, **kwargs)

        return foreach_reduce

    def _look_at(self, gradients: Sequence[Tensor]) -> None:
        began = perf_counter()
        if not self._scattered:
            self._scattered, self._measured = True, []
            self._syncs += 1
        if self._is_whole:
            with torch.no_grad():
                self._measured.append(self._reducer.measure(gradients))
        self.seconds += perf_counter() - began
