"""The gradient at each time step of recurrent modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

TIMES = 128
"""Longer series are sampled at so many time steps."""


def with_gradient(module: nn.RNNBase, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a recurrent module, its input such that it gets a gradient.

    Where it gets none by itself (it is data), a detached tensor of the same memory stands in for it.
    """
    given, *rest = args
    data = data_of(given)
    if data is None or data.requires_grad or not allows_stand_in(module):
        return args
    stand_in = data.detach().requires_grad_()
    return (given._replace(data=stand_in) if isinstance(given, PackedSequence) else stand_in, *rest)


def allows_stand_in(module: nn.RNNBase) -> bool:
    """Whether nobody can notice that the input requires a gradient.

    The output requires one anyway, torch's own forward doesn't write into its input, and no hook counts the tensors
    that are saved for backward, as gradient checkpointing does.
    """
    trains = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in module.parameters())
    own = type(module).forward in (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward)
    return trains and own and torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def data_of(given: Any) -> Tensor | None:
    """The floating-point tensor of an input, packed or not; none inside `torch.func` transforms."""
    data = given.data if isinstance(given, PackedSequence) else given
    if not isinstance(data, Tensor) or torch._C._functorch.is_functorch_wrapped_tensor(data):
        return None
    return data if data.is_floating_point() else None


def watch_input(module: nn.RNNBase, given: Any, report: Callable[[Tensor, int], None]) -> RemovableHandle | None:
    """Once there is a gradient of the input, report its mean squares (times,) float32, and how many steps there are."""
    data = data_of(given)
    if data is None or not data.requires_grad:
        return None
    if isinstance(given, PackedSequence):
        sizes = given.batch_sizes.tolist()
        return data.register_hook(lambda gradient: report(by_time_packed(gradient, sizes), len(sizes)))  # type: ignore[no-any-return, no-untyped-call]
    dim = 1 if module.batch_first and data.dim() == 3 else 0
    return data.register_hook(lambda gradient: report(by_time(gradient, dim), gradient.shape[dim]))  # type: ignore[no-any-return, no-untyped-call]


def by_time(gradient: Tensor, dim: int) -> Tensor:
    """Mean square of a gradient at up to TIMES time steps along `dim`, first and last included."""
    chosen = gradient.detach().movedim(dim, 0)
    if len(chosen) > TIMES:
        chosen = chosen.index_select(0, torch.tensor(positions(len(chosen)), device=chosen.device))
    return chosen.float().square().flatten(1).mean(1)


def by_time_packed(gradient: Tensor, sizes: list[int]) -> Tensor:
    """The same of a packed gradient (elements, features), `sizes` of which belong to each time step."""
    steps = torch.split(gradient.detach().float(), sizes)
    return torch.stack([steps[position].square().mean() for position in positions(len(sizes))])


def positions(length: int) -> list[int]:
    """Up to TIMES positions of `length` at even distances, first and last included."""
    if length <= TIMES:
        return list(range(length))
    return [round(index * (length - 1) / (TIMES - 1)) for index in range(TIMES)]


def hidden_state(output: Any) -> Tensor | None:
    """The hidden state that a cell returns."""
    state = output[0] if isinstance(output, tuple) else output
    return state if isinstance(state, Tensor) and state.requires_grad else None
