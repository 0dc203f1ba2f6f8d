"""The global random generators of torch, NumPy and Python, kept before every forward pass at next to no cost."""

from __future__ import annotations

import ctypes
import random
import struct
from typing import Any

import numpy as np
import torch

MT19937_BYTES = 625 * 4
HAS_GAUSS = 3
OWN_FIELDS = object.__basicsize__  # what any object of Python's begins with


class RandomState:
    """The state of torch's, NumPy's and Python's global generators.

    NumPy and Python build theirs anew on every call, which takes longer than all else here: they are asked only
    after a draw, which shows in the generator's memory.
    """

    _numpy_memory: bytes = b""
    _numpy_state: Any = None
    _python_memory: bytes = b""
    _python_state: Any = None

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        self._numpy = self._read_numpy()
        self._python = self._read_python()

    def restore(self) -> None:
        """Draw from here on what was drawn then."""
        torch.set_rng_state(self._torch)
        for number, state in enumerate(self._cuda):
            torch.cuda.set_rng_state(state, number)
        np.random.set_state(self._numpy)
        RandomState._numpy_state = None
        random.setstate(self._python)

    @classmethod
    def _read_numpy(cls) -> Any:
        """Normal numbers are made in pairs: handing out a kept second one changes nothing in the memory."""
        generator = np.random.mtrand._rand._bit_generator
        if type(generator).__name__ != "MT19937":
            return np.random.get_state(legacy=False)
        memory = ctypes.string_at(generator.ctypes.state_address, MT19937_BYTES)
        if memory != cls._numpy_memory or cls._numpy_state is None or cls._numpy_state[HAS_GAUSS]:
            cls._numpy_memory, cls._numpy_state = memory, np.random.get_state()
        return cls._numpy_state

    @classmethod
    def _read_python(cls) -> Any:
        """As with NumPy, where the memory is laid out as CPython has it; a kept second normal number is elsewhere."""
        if not MEMORY_IS_KNOWN:
            return random.getstate()
        memory = python_memory()
        kept = cls._python_state
        if memory != cls._python_memory or kept is None or kept[-1] is not None or GENERATOR.gauss_next is not None:
            cls._python_memory, cls._python_state = memory, random.getstate()
        return cls._python_state


GENERATOR: Any = getattr(random, "_inst", None)


def python_memory() -> bytes:
    """Index and words of Python's global generator."""
    return ctypes.string_at(id(GENERATOR) + OWN_FIELDS, MT19937_BYTES)


def memory_is_known() -> bool:
    """Whether the generator's memory holds what `getstate` says: another interpreter may have it elsewhere."""
    if type(GENERATOR) is not random.Random or GENERATOR.__sizeof__() < OWN_FIELDS + MT19937_BYTES:
        return False
    _, (*words, index), _ = random.getstate()
    return python_memory() == struct.pack("=i624I", index, *words)


MEMORY_IS_KNOWN = memory_is_known()
