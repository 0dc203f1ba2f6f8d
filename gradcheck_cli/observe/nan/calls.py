"""An operator's call taken apart: what it reads, what it writes, and the numbers among its arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

from gradcheck_cli.observe.nan.states import tensors_in

DESTINATIONS = """
fill_ copy_ zero_ uniform_ normal_ random_ exponential_ bernoulli_ log_normal_ cauchy_ geometric_ resize_ set_
_foreach_copy_ _foreach_zero_
"""
MAKERS = """
empty_like zeros_like ones_like full_like rand_like randn_like randint_like
new_empty new_empty_strided new_zeros new_ones new_full
"""
OVERWRITES = frozenset(DESTINATIONS.split())  # their `self` is a destination only
SHAPE_ONLY = frozenset(MAKERS.split())  # they read no element
ADDING_VIEWS = frozenset(("expand", "unfold", "as_strided"))  # backward adds what went to the same element
UNDECLARED_WRITES = dict.fromkeys(
    ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), ("running_mean", "running_var")
)


@dataclass(frozen=True)
class Argument:
    """A tensor among the arguments, under the schema's name; those of a list one by one."""

    name: str
    tensor: Tensor
    is_read: bool
    is_written: bool


def name_of(func: OpOverload) -> str:
    """Without namespace and overload: sqrt."""
    return func._schema.name.rpartition("::")[2]


def is_view(func: OpOverload) -> bool:
    """Whether the result shares its input's storage and nothing is written."""
    return bool(func.is_view)


def values_by_name(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The schema's arguments that were given, with their values."""
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            yield argument, args[position]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def arguments_of(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Argument]:
    """The tensors of a call."""
    name = name_of(func)
    for argument, value in values_by_name(func, args, kwargs):
        written = argument.alias_info is not None and argument.alias_info.is_write
        written = written or argument.name in UNDECLARED_WRITES.get(name, ())
        destination = argument.is_out or (written and name in OVERWRITES) or name in SHAPE_ONLY
        for tensor in tensors_in(value):
            yield Argument(argument.name, tensor, not destination, written)


def outputs_of(result: Any, arguments: Sequence[Argument]) -> list[Tensor]:
    """What a call made or changed, each tensor once."""
    outputs = {id(tensor): tensor for tensor in tensors_in(result)}
    outputs.update({id(argument.tensor): argument.tensor for argument in arguments if argument.is_written})
    return list(outputs.values())


def plain_constants(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The arguments that are no tensors, as text."""
    given = [(argument.name, value) for argument, value in values_by_name(func, args, kwargs)]
    return tuple(
        (name, str(value)) for name, value in given if value is not None and next(tensors_in(value), None) is None
    )


def bad_numbers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[float]:
    """The NaN and infinite numbers among the arguments."""
    return [value for value in (*args, *kwargs.values()) if isinstance(value, float) and not math.isfinite(value)]
