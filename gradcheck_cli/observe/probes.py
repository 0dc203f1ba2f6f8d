"""RMS of each weight-bearing module's output, and of the loss gradient with respect to it, on sampled steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradcheck_cli.observe.native.library import read
from gradcheck_cli.observe.signals.sampling import Term, mean_square, thin, widened, zero_fraction
from gradcheck_cli.observe.signals.tallies import Tallies
from gradcheck_cli.observe.squares import sum_of_squares


class Probes:
    """Look at what `modules` return between `attach` and `detach`, and add what they see to the tallies.

    Sums of squares of each output, and of the loss gradient with respect to it, with the number of elements behind
    those of all calls, in calling order; and of each call the mean square of the input, the mean of the output and the
    fraction of zeros in it. Calls without gradients are no training, unless `is_inside` says that they are part of a
    call with (gradient checkpointing).
    """

    def __init__(self, modules: Sequence[nn.Module], tallies: Tallies, is_inside: Callable[[], bool]) -> None:
        self._tallies, self._is_inside = tallies, is_inside
        self._hooks = [(module, self._hook(index)) for index, module in enumerate(modules)]
        self.told: dict[int, Callable[..., None]] = {}
        """By a module's identity, whom to give it, what it was called with and what it returns."""
        self._handles: list[RemovableHandle] = []
        self.output_numel: dict[int, int] = {}
        self.gradient_numel: dict[int, int] = {}
        self.seconds = 0.0

    def attach(self, is_told: bool) -> None:
        """Watch from now on, by hooks unless those in `told` are; `seconds` counts what that takes.

        A module with hooks of its own, which may change what it returns, always gets one, after those.
        """
        self.output_numel, self.gradient_numel, self.seconds = {}, {}, 0.0
        for module, hook in self._hooks:
            if is_told and not module._forward_hooks:
                self.told[id(module)] = hook
            else:
                self._handles.append(module.register_forward_hook(hook))

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.told.clear()

    def _hook(self, index: int) -> Any:
        names = f"output.{index}", f"layer.{index}"
        on_gradient = self._gradient_hook(index)

        def after_forward(module: nn.Module, args: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or not (torch.is_grad_enabled() or self._is_inside()):
                return
            began = perf_counter()
            with torch._C.DisableTorchFunction():
                returned = list(floating_tensors(output))
                if torch._C._current_graph_task_id() == -1:  # else gradient checkpointing, inside backward
                    self._look(index, names, args, returned)
                for tensor in returned:
                    if tensor.requires_grad:
                        handle = tensor.register_hook(on_gradient)  # type: ignore[no-untyped-call]
                        if tensor.is_leaf:  # a parameter handed out as it is: its hook would outlive the step
                            self._handles.append(handle)
            self.seconds += perf_counter() - began

        return after_forward

    def _look(self, index: int, names: tuple[str, str], args: Any, returned: list[Tensor]) -> None:
        output_name, layer_name = names
        for number, tensor in enumerate(returned):
            squares, mean, zeros = describe(tensor)
            self._tallies.add_to(output_name, (squares,))
            self.output_numel[index] = self.output_numel.get(index, 0) + tensor.numel()
            if number == 0 and mean is not None:
                self._tallies.add_to(layer_name, (input_square(args), mean, zeros))

    def _gradient_hook(self, index: int) -> Any:
        name = f"gradient.{index}"

        def on_gradient(gradient: Tensor) -> None:
            began = perf_counter()
            sums = read(gradient)
            squares = sum_of_squares(gradient.detach()) if sums is None else sums[1]
            self._tallies.add_to(name, (squares,))
            self.gradient_numel[index] = self.gradient_numel.get(index, 0) + gradient.numel()
            self.seconds += perf_counter() - began

        return on_gradient


def describe(tensor: Tensor) -> tuple[Term, Term, Term]:
    """Sum of squares of an output; mean and fraction of zeros, none of a complex or empty one.

    Those two are of a sample where all can't be read at once.
    """
    sums, numel = read(tensor), tensor.numel()
    if sums is not None and numel:
        return sums[1], sums[0] / numel, sums[3] / numel
    detached = tensor.detach()
    squares = sum_of_squares(detached)
    if not tensor.is_floating_point() or not numel:
        return squares, None, None
    values = thin(detached)
    return squares, widened(values).mean(), zero_fraction(values)


def input_square(args: Any) -> Term:
    """The mean square of what a layer was given; none where it was given no numbers."""
    given = next(floating_tensors(args), None)
    return None if given is None or not given.numel() else mean_square(given)


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
