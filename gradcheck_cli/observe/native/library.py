"""The compiled reductions, for tensors whose memory they can read as it lies there.

A wheel, and an installation from source where a C compiler is found, have them; `COMPILED` is None elsewhere, and
`host_numerics` does the same with calls of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, POINTER, c_double, c_int64, c_void_p
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from gradcheck_cli.records import Floats, Ints

NARROW = (torch.float32, torch.bfloat16, torch.float16)
PLAIN = frozenset((Tensor, Parameter))
KIND = attrgetter("dtype", "layout", "is_cpu")
DIRECT = frozenset([(torch.float32, torch.strided, True)])
PATH = Path(__file__).with_name("_reductions.so")
Sums = tuple[float, float, float, float]


class Reductions:
    """Each reads all elements once and adds in float64. Every tensor must be one that `is_direct` accepts."""

    def __init__(self, library: CDLL) -> None:
        arrays, sizes, out = POINTER(c_void_p), POINTER(c_int64), c_void_p
        self._describe, self._norms = library.describe, library.norms
        self._compare, self._moments_of = library.compare, library.moments_of
        self._sample, self._sharpness = library.sample, library.sharpness
        self._find_active, self._variation = library.find_active, library.variation
        self._find_active.argtypes = [c_void_p, c_int64, c_int64, c_int64, out]
        self._variation.argtypes = [c_void_p, c_int64, c_int64, out]
        self._sample.argtypes = [arrays, sizes, sizes, c_int64, out]
        self._sharpness.argtypes = [c_void_p, c_void_p, c_int64, c_int64, c_int64, out]
        self._describe.argtypes = self._norms.argtypes = [arrays, sizes, c_int64, out]
        self._compare.argtypes = [arrays, arrays, sizes, c_int64, out]
        self._moments_of.argtypes = [c_void_p, c_int64, POINTER(c_double)]
        for function in vars(self).values():
            function.restype = None
        self._variation.restype = c_double

    def describe(self, tensors: Sequence[Tensor]) -> Floats:
        """(n, 6) float64: the COLUMNS of `numerics` of each tensor."""
        places, out = places_of(tensors), np.empty((len(tensors), 6))
        self._describe(places.begin, places.length, len(out), out.ctypes.data)
        return out

    def norms(self, places: Places) -> Floats:
        """(n,) float64: the L2 norm of each tensor."""
        out = np.empty(len(places.sizes))
        self._norms(places.begin, places.length, len(out), out.ctypes.data)
        return out

    def compare(self, ones: Places, others: Places) -> Floats:
        """(n, 2) float64: the L2 norm of each difference, and each inner product, of tensors of the same sizes."""
        out = np.empty((len(ones.sizes), 2))
        self._compare(ones.begin, others.begin, ones.length, len(out), out.ctypes.data)
        return out

    def find_active(self, tensor: Tensor, dim: int) -> Tensor:
        """(units,) bool: which units along a dimension are anywhere other than 0."""
        units, inner = tensor.shape[dim], prod(tensor.shape[dim + 1 :])
        out = torch.empty(units, dtype=torch.bool)
        self._find_active(tensor.data_ptr(), tensor.numel() // (units * inner), units, inner, out.data_ptr())
        return out

    def variation(self, rows: Tensor) -> float:
        """The standard deviation across (examples, ...) over the RMS; 0 where all are 0."""
        means = np.empty(rows.numel() // len(rows))
        return float(self._variation(rows.data_ptr(), len(rows), len(means), means.ctypes.data))

    def sample(self, tensors: Sequence[Tensor], most: int) -> tuple[list[int], Tensor]:
        """Up to `most` elements of each tensor at even distances: how many of each, and all of them, float32."""
        places = places_of(tensors)
        steps = [step_of(size, most) for size in places.sizes]
        lengths = [-(-size // step) for size, step in zip(places.sizes, steps, strict=True)]
        out = torch.empty(sum(lengths))
        self._sample(places.begin, places.length, (c_int64 * len(steps))(*steps), len(steps), out.data_ptr())
        return lengths, out

    def sharpness(self, logits: Tensor, limits: Ints) -> Floats:
        """(queries, 2) float64 of logits (..., n, keys): of each query, the standard deviation over the keys that it
        sees, and the entropy of its softmax over the log of their number. limits (n,): the first so many; fewer than
        two give NaN.
        """
        keys = logits.shape[-1]
        out = np.empty((logits.numel() // max(1, keys), 2))
        self._sharpness(logits.data_ptr(), limits.ctypes.data, len(limits), len(out), keys, out.ctypes.data)
        return out

    def moments_of(self, tensor: Tensor) -> Sums:
        """Sum, sum of squares, largest magnitude (NaN if one is) and number of zeros."""
        out = (c_double * 4)()
        self._moments_of(tensor.data_ptr(), tensor.numel(), out)
        total, squares, largest, zeros = out
        return total, squares, largest, zeros


@dataclass(frozen=True)
class Places:
    """Where tensors begin and how many elements they have, also for C."""

    addresses: Sequence[int]
    sizes: Sequence[int]
    begin: Any = None
    length: Any = None

    def are_those_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether tensors that were here still are."""
        return [*map(Tensor.data_ptr, tensors)] == self.addresses and [*map(Tensor.numel, tensors)] == self.sizes


def places_of(tensors: Sequence[Tensor]) -> Places:
    """Where they are now."""
    return places_at([*map(Tensor.data_ptr, tensors)], [*map(Tensor.numel, tensors)])


def places_at(addresses: list[int], sizes: list[int]) -> Places:
    """The same by numbers."""
    count = len(addresses)
    return Places(addresses, sizes, (c_void_p * count)(*addresses), (c_int64 * count)(*sizes))


def step_of(numel: int, most: int) -> int:
    """The distance of a sample's elements; odd, so that it doesn't fall on the same column of every row."""
    step = -(-numel // most)
    return step | 1 if step > 1 else 1


def is_direct(tensor: Tensor) -> bool:
    """Whether its numbers lie in this machine's memory one after another, float32, and not as a subclass keeps them."""
    if type(tensor) not in PLAIN or KIND(tensor) not in DIRECT or not tensor.is_contiguous():
        return False
    return not tensor.is_neg() and has_memory(tensor)


def are_direct(tensors: Sequence[Tensor]) -> bool:
    """Whether `is_direct` accepts each; many at a time, without a Python call for each."""
    return (
        PLAIN.issuperset(map(type, tensors))
        and DIRECT.issuperset(map(KIND, tensors))
        and all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
        and all(map(has_memory, tensors))
    )


def has_memory(tensor: Tensor) -> bool:
    """Whether there is something to read: not in a transform, not zeros that are only known to be, not given back."""
    return torch._C._has_storage(tensor) and (tensor.data_ptr() != 0 or tensor.numel() == 0)


def as_direct(tensor: Tensor) -> Tensor | None:
    """The same numbers as they can be read: itself, or a copy; None where that isn't compiled or would lose digits."""
    if COMPILED is None:
        return None
    if is_direct(tensor):
        return tensor
    if not tensor.is_cpu or tensor.dtype not in NARROW or tensor.layout is not torch.strided:
        return None
    straight = tensor.detach().to(torch.float32).contiguous().resolve_neg()
    return straight if is_direct(straight) else None


def read(tensor: Tensor) -> Sums | None:
    """`Reductions.moments_of` a tensor; None for one that can't be read directly."""
    straight = as_direct(tensor)
    return None if straight is None or COMPILED is None else COMPILED.moments_of(straight)


def load(path: Path) -> Reductions | None:
    """The reductions of a compiled file; None where it is absent, of another machine or of another version."""
    try:
        return Reductions(CDLL(str(path)))
    except (OSError, AttributeError):
        return None


COMPILED = load(PATH)
