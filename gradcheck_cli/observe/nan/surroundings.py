"""What the user's functions keep outside the model: variables of enclosing functions, globals, random generators."""

from __future__ import annotations

import copy
import functools
import itertools
import random
import sys
import sysconfig
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from gradcheck_cli.observe.nan.kept import keep_value, kept_value

Restore = Callable[[], None]
ITERATORS: tuple[type, ...] = (itertools.count, type(iter([])), type(iter(())), type(iter(range(0))))
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
KEPT_ELSEWHERE = (nn.Module, Optimizer, type, types.ModuleType, types.FunctionType, types.MethodType)
DEEPEST = 3


class Surroundings:
    """The variables that some functions, and those that they call, can change from one step to the next."""

    def __init__(self, functions: Iterable[Any]) -> None:
        self._restores: list[Restore] = []
        self._iterators: list[tuple[MutableMapping[str, Any], str, Any, Any]] = []
        self._seen: set[int] = set()
        for function in functions:
            self._keep_function(function, DEEPEST)

    def restore(self, resume: bool = False) -> None:
        """Put the variables back; iterators as copies that stand where they stood.

        `resume`: the iterators themselves, which others may hold, too: copies have been in use since.
        """
        for restore in self._restores:
            restore()
        copies = {id(original): original if resume else copied_iterator(kept) for *_, original, kept in self._iterators}
        for namespace, name, original, _ in self._iterators:
            namespace[name] = copies[id(original)]

    def _keep_function(self, function: Any, depth: int) -> None:
        for part in parts_of(function):
            if id(part) in self._seen or not is_users(part):
                continue
            self._seen.add(id(part))
            if not isinstance(part, types.FunctionType):
                self._restores += restores_of(part)
                continue
            for namespace, name in variables_of(part):
                self._keep_variable(namespace, name, depth)

    def _keep_variable(self, namespace: MutableMapping[str, Any], name: str, depth: int) -> None:
        value = namespace[name]
        self._restores += restores_of(value)
        if is_iterator(value):
            self._iterators.append((namespace, name, value, copied_iterator(value)))
            return
        kept = keep_value(value)
        self._restores.append(lambda: namespace.update({name: kept_value(kept)}))
        if depth and isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            self._keep_function(value, depth - 1)


class Cells(MutableMapping[str, Any]):
    """The variables of enclosing functions, by name."""

    def __init__(self, function: types.FunctionType) -> None:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self._cells = {name: cell for name, cell in cells if is_filled(cell)}

    def __getitem__(self, name: str) -> Any:
        return self._cells[name].cell_contents

    def __setitem__(self, name: str, value: Any) -> None:
        self._cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        del self._cells[name].cell_contents

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def is_filled(cell: types.CellType) -> bool:
    """Whether a variable has a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def parts_of(function: Any) -> Iterator[Any]:
    """The plain functions behind a callable, and the object that it belongs to."""
    if isinstance(function, functools.partial):
        yield from parts_of(function.func)
    elif isinstance(function, types.MethodType):
        yield function.__func__
        yield function.__self__
    elif isinstance(function, types.FunctionType):
        yield function
    elif function is not None and not isinstance(function, KEPT_ELSEWHERE):
        yield function
        yield from parts_of(vars(type(function)).get("__call__"))


def variables_of(function: types.FunctionType) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """The variables that a function names and does not own, each with where it lives."""
    cells = Cells(function)
    yield from ((cells, name) for name in cells)
    names = [name for name in function.__code__.co_names if name in function.__globals__]
    yield from ((function.__globals__, name) for name in names)


def restores_of(value: Any) -> list[Restore]:
    """How to put back what changes inside an object: a random generator's state, a user's own object's attributes."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return [lambda: void(value.set_state(state))]
    if isinstance(value, np.random.Generator):
        numbers = value.bit_generator.state
        return [lambda: setattr(value.bit_generator, "state", numbers)]
    if isinstance(value, random.Random):
        kept = value.getstate()
        return [lambda: value.setstate(kept)]
    if not isinstance(value, KEPT_ELSEWHERE) and hasattr(value, "__dict__") and is_users(value):
        attributes = {key: keep_value(item) for key, item in vars(value).items()}
        return [lambda: vars(value).update({key: kept_value(item) for key, item in attributes.items()})]
    return []


def void(value: object) -> None:
    """Nothing."""


def is_users(value: Any) -> bool:
    """Whether a function, or an object's class, is defined in the user's own files."""
    name = getattr(value, "__module__", None) if isinstance(value, types.FunctionType) else type(value).__module__
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    return file is not None and not file.startswith(LIBRARIES) and "site-packages" not in file


def is_iterator(value: Any) -> bool:
    """Whether it can be copied without taking from it."""
    return isinstance(value, (*ITERATORS, itertools.cycle))


def copied_iterator(value: Any) -> Any:
    """An iterator that stands where this one does; what is no iterator, or cannot be copied, as it is."""
    if isinstance(value, ITERATORS):
        return copy.copy(value)
    if isinstance(value, itertools.cycle) and hasattr(value, "__setstate__"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            reduced: Any = value.__reduce__()
            _, (inner,), (saved, first_pass) = reduced
            other: Any = itertools.cycle(copied_iterator(inner))
            other.__setstate__((list(saved), first_pass))
            return other
    return value
