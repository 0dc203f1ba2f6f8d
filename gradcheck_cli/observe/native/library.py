"""The compiled reductions, for tensors whose memory they can read as it lies there.

A wheel, and an installation from source where a C compiler and Python's headers are found, have them; `COMPILED` is
None elsewhere, and calls of torch do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast
from weakref import ref

import torch
from torch import Tensor

NAME = "gradcheck_cli.observe.native._reductions"
NARROW = (torch.float32, torch.bfloat16, torch.float16)
T = TypeVar("T")
Sums = tuple[float, float, float, float]
"""Sum, sum of squares, largest magnitude (NaN if one is) and number of zeros."""


class Reductions(Protocol):
    """Each reads all elements once and adds in float64; None of tensors that `is_direct` refuses.

    Bytes hold rows of float64, unless said otherwise. Among tensors, None stands for an absent one, which is left out.
    """

    def is_direct(self, tensor: Tensor, /) -> bool:
        """Whether it is torch's own, float32, in this machine's memory, one number after another."""

    def describe(self, tensors: Sequence[Tensor | None], /) -> bytes | None:
        """(n, 6): the COLUMNS of `numerics` of each tensor."""

    def norms(self, tensors: Sequence[Tensor | None], /) -> bytes | None:
        """(n,): the L2 norm of each tensor."""

    def copy(self, tensors: Sequence[Tensor], /) -> list[bytes] | None:
        """The float32 elements of each."""

    def changes(self, copies: list[bytes], tensors: Sequence[Tensor], /) -> tuple[bytes, bytes] | None:
        """(n,) and (n,): the L2 norm of the difference to each copy, and the largest magnitude."""

    def sample(self, tensors: Sequence[Tensor | None], most: int, /) -> tuple[list[int], bytes] | None:
        """Up to `most` elements of each at even distances: how many of each, and all of them, float32."""

    def compare(self, ones: bytes, others: bytes, lengths: list[int], /) -> tuple[bytes, bytes]:
        """(n,) and (n,) of samples of these lengths: each inner product, and half the sum of both squared norms."""

    def moments_of(self, tensor: Tensor, /) -> Sums | None:
        """Of one tensor."""

    def first(self, tensors: Sequence[Tensor | None], most: int, /) -> bytes | None:
        """Up to so many elements from the beginning of each, one after another, float32."""

    def find_active(self, tensor: Tensor, units: int, inner: int, /) -> bytes | None:
        """(units,) bool: which units of (outer, units, inner) are anywhere other than 0."""

    def same_class(self, tensor: Tensor, rows: int, /) -> float | None:
        """The share of so many rows whose largest element is in the column where it is most often."""

    def variation(self, tensor: Tensor, rows: int, /) -> float | None:
        """The standard deviation across so many rows over the RMS; 0 where all are 0."""

    def sharpness(self, logits: Tensor, limits: bytes, keys: int, /) -> bytes | None:
        """(queries, 2) of logits (..., n, keys): of each query, the standard deviation over the keys that it sees, and
        the entropy of its softmax over the log of their number. limits (n,) int64: the first so many; fewer than two
        give NaN.
        """

    def users_path(self, users: Mapping[str, bool], /) -> tuple[int, ...] | None:
        """Of each of the user's frames, from the caller's out to the script's own: its code's identity, and where in
        it. `users` tells of a file whether it is the user's. None before Python 3.11.
        """

    def marks(self, references: list[ref[Tensor]], /) -> list[tuple[int, int] | None]:
        """Of each parameter, identity and version of its gradient; None where there is none."""

    def versions(self, references: list[ref[Tensor]], /) -> list[int | None]:
        """Of each parameter, its version; None where it is gone."""


def read(tensor: Tensor) -> Sums | None:
    """`Reductions.moments_of` a tensor, if it can be read."""
    if COMPILED is None:
        return None
    found = COMPILED.moments_of(tensor)
    return COMPILED.moments_of(straightened(tensor)) if found is None and is_narrow(tensor) else found


def apply(reduction: Callable[..., T | None], tensor: Tensor, *rest: Any) -> T | None:
    """A reduction of a tensor, or of a copy as it can be read; None where that would lose digits."""
    found = reduction(tensor, *rest)
    if found is None and is_narrow(tensor):
        found = reduction(straightened(tensor), *rest)
    return found


def is_narrow(tensor: Tensor) -> bool:
    """Whether float32 in this machine's memory can hold its numbers."""
    return tensor.is_cpu and tensor.dtype in NARROW and tensor.layout is torch.strided


def straightened(tensor: Tensor) -> Tensor:
    """A copy in float32, one number after another."""
    return tensor.detach().to(torch.float32).contiguous().resolve_neg()


def load(name: str) -> Reductions | None:
    """The compiled module; None where it is absent, of another machine or of another version."""
    try:
        module = import_module(name)
    except ImportError:
        return None
    functions = [function for function in vars(Reductions) if not function.startswith("_")]
    return cast(Reductions, module) if all(hasattr(module, function) for function in functions) else None


COMPILED = load(NAME)
