"""RMS of each weight-bearing module's output, and of the loss gradient with respect to it, on sampled steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradcheck_cli.observe.signals.sampling import mean_square, thin
from gradcheck_cli.observe.squares import sum_of_squares


@dataclass
class Tally:
    """Sums of squares over all calls of one module in one step, with the number of elements behind them.

    `signals` has for each call the mean square of its input, the mean of its output, the fraction of zeros in it.
    """

    output: list[Tensor] = field(default_factory=list)
    output_numel: int = 0
    gradient: list[Tensor] = field(default_factory=list)
    gradient_numel: int = 0
    signals: list[Tensor] = field(default_factory=list)


class Probes:
    """Forward hooks on `modules` between `attach` and `detach`; `tallies` holds what they saw, in calling order."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._handles: list[RemovableHandle] = []
        self.tallies: dict[int, Tally] = {}
        self.seconds = 0.0

    def attach(self) -> None:
        """Watch from now on; `seconds` counts what that takes."""
        self.tallies = {}
        self.seconds = 0.0
        for index, module in enumerate(self._modules):
            self._handles.append(module.register_forward_hook(self._hook(index)))

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, index: int) -> Any:
        def after_forward(module: nn.Module, args: Any, output: Any) -> None:
            if torch.compiler.is_compiling():
                return
            began = perf_counter()
            tally = self.tallies.setdefault(index, Tally())
            recomputed = torch._C._current_graph_task_id() != -1  # gradient checkpointing, inside backward
            if not recomputed:
                tally.signals += measure_layer(args, output)
            for tensor in floating_tensors(output):
                if not recomputed:
                    tally.output.append(sum_of_squares(tensor.detach()))
                    tally.output_numel += tensor.numel()
                if tensor.requires_grad:
                    handle = tensor.register_hook(self._gradient_hook(tally))  # type: ignore[no-untyped-call]
                    if tensor.is_leaf:  # a parameter handed out as it is: its hook would outlive the step
                        self._handles.append(handle)
            self.seconds += perf_counter() - began

        return after_forward

    def _gradient_hook(self, tally: Tally) -> Any:
        def on_gradient(gradient: Tensor) -> None:
            began = perf_counter()
            tally.gradient.append(sum_of_squares(gradient.detach()))
            tally.gradient_numel += gradient.numel()
            self.seconds += perf_counter() - began

        return on_gradient


def measure_layer(args: Any, output: Any) -> list[Tensor]:
    """Mean square of the input, mean of the output, fraction of zeros in it: (3,) float32 of samples, if there are."""
    given, returned = next(floating_tensors(args), None), next(floating_tensors(output), None)
    if returned is None or not returned.is_floating_point() or not returned.numel():
        return []
    values = thin(returned.detach())
    square = values.new_tensor(torch.nan).float() if given is None or not given.numel() else mean_square(given).float()
    return [torch.stack([square, values.float().mean(), (values == 0).float().mean()])]


def floating_tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors with at least one dimension in a tensor, mapping or (nested) sequence."""
    if isinstance(output, Tensor):
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(output)  # inside vmap or grad: no value to read
        if output.dim() and not wrapped and (output.is_floating_point() or output.is_complex()):
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from floating_tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from floating_tensors(value)


def merge_order(order: list[int], seen: Sequence[int]) -> None:
    """Insert into `order` what `seen` adds, each right after the one that it followed."""
    position = 0
    for index in seen:
        if index in order:
            position = order.index(index) + 1
        else:
            order.insert(position, index)
            position += 1
