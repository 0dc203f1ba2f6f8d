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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.observe.hooks import patched
from gradcheck_cli.observe.numerics import Reducer
from gradcheck_cli.observe.ranks.unused import MIXES, Unfinished, unused
from gradcheck_cli.observe.transfer import Value
from gradcheck_cli.observe.values import local
from gradcheck_cli.records import Floats

FSDP = "torch.distributed.fsdp._fully_shard._fsdp_param_group"


class LocalGradients:
    """Between two calls of `take`: what this rank's gradient was when it was last synchronised, and how often it was.

    `names` are those of the parameters, `modules` those that synchronise; `is_whole` says whether each rank has whole
    gradients. `begins` hears of each backward before it runs, `largest` gives the maximum over ranks. `seconds` counts
    what looking took. A backward that would make other ranks wait for ever raises UnusedParameterError.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        names: Sequence[str],
        modules: Sequence[nn.Module],
        reducer: Reducer,
        is_whole: bool,
        begins: Callable[[], None],
        largest: Callable[[Floats], Floats],
    ) -> None:
        self._parameters, self._reducer, self._is_whole, self._begins = parameters, reducer, is_whole, begins
        self._names, self._largest = names, largest
        self._modules = {id(module) for module in modules}
        self._unfinished = {id(one): Unfinished(one) for one in modules if isinstance(one, DistributedDataParallel)}
        self._own = {id(parameter): index for index, parameter in enumerate(parameters)}
        self._agreed: set[int] = set()
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
                self._unfinished[id(module)].is_due = module.require_backward_grad_sync
                # in a view of a bucket they are summed up where they are
                self._can_look = self._is_whole and not module.gradient_as_bucket_view
            return call(module, *args, **kwargs)

        return forward

    def _ask(self, gradient: Tensor) -> None:
        """Backward has just begun: be called at its end, before DDP is."""
        began = perf_counter()
        for one in self._unfinished.values():
            one.begin()
        torch.autograd.Variable._execution_engine.queue_callback(self._look)
        self.seconds += perf_counter() - began

    def _look(self) -> None:
        began = perf_counter()
        for one in self._unfinished.values():
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
                self._check_agreement([self._own[id(parameter.sharded_param)] for parameter in parameters])
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

    def _check_agreement(self, indices: Sequence[int]) -> None:
        """When FSDP2 reduces a group of parameters for the first time, on all ranks the same ones must be used.

        Raises UnusedParameterError on a rank that did not use what another one did.
        """
        if self._agreed.issuperset(indices):
            return
        self._agreed.update(indices)
        used = np.zeros(len(self._parameters))
        used[list(indices)] = 1
        missing = np.flatnonzero(self._largest(used) > used)
        if len(missing):
            raise unused([self._names[index] for index in missing.tolist()], MIXES, "--strategy ddp does not mind")
