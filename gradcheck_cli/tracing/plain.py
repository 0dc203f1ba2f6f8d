"""Values in the types that `torch.load(weights_only=True)` reads.

What is of another class becomes a mapping that says how to make it anew: `{"__class__": "module:name"}` with
`arguments` to call it with, or with the `attributes`, and for a mapping the `items`, of one made without `__init__`.
`rebuild` turns it back.
"""

from __future__ import annotations

import copyreg
import dataclasses
import importlib
import io
import operator
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

AS_THEY_ARE = (type(None), bool, int, float, complex, str, bytes, Tensor, torch.nn.Parameter)
MADE_ANEW = copyreg.__newobj__  # type: ignore[attr-defined]  # what pickle calls for an object of attributes only
CALLED: tuple[tuple[type, Callable[[Any], list[Any]]], ...] = (
    (np.generic, lambda value: [value.item()]),
    (Enum, lambda value: [value.value]),
    (PurePath, lambda value: [str(value)]),
    (frozenset, lambda value: [list(value)]),
    (deque, lambda value: [list(value), value.maxlen]),
    (range, lambda value: [value.start, value.stop, value.step]),
    (tuple, list),  # named ones
)


def to_plain(value: Any, path: str, lost: list[str]) -> Any:
    """The value in plain types; adds to `lost` what had to be left out or changed, by the path that leads to it."""
    if type(value) in AS_THEY_ARE:
        return value
    if type(value) in (list, tuple):
        return type(value)(to_plain(item, f"{path}[{i}]", lost) for i, item in enumerate(value))
    if type(value) is dict:
        return {plain_key(key, path, lost): to_plain(item, f"{path}[{key!r}]", lost) for key, item in value.items()}
    if not isinstance(value, (tuple, Mapping)) and is_loadable(value):
        return value
    if isinstance(value, Tensor):
        lost.append(f"{path} is a plain tensor there, not a {type(value).__name__}")
        return value.as_subclass(Tensor)
    return described(value, path, lost)


def described(value: Any, path: str, lost: list[str]) -> Any:
    """How to make an object of another class; None where that cannot be told."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        node = in_other_words(value, path, lost)
        rebuild(node)
    except Exception:  # its class may do as it likes
        lost.append(f"{path}, of type {name}, is None there")
        return None
    if node.get("__class__") == "types:SimpleNamespace" or "__class__" not in node:
        lost.append(f"{path} is not a {name} there, but what has the same content: that class cannot be imported")
    return node


def in_other_words(value: Any, path: str, lost: list[str]) -> dict[str, Any]:
    """The mapping that `rebuild` reads; raises what the object's own class raises, TypeError where nothing is in it."""
    if isinstance(value, np.ndarray):
        return array_in_other_words(value, path, lost)
    if kind := importable(type(value)):
        for base, arguments in CALLED:
            if isinstance(value, base):
                return {"__class__": kind, "arguments": to_plain(arguments(value), path, lost)}
    if not isinstance(value, dict) and value.__reduce_ex__(2)[:2] != (MADE_ANEW, (type(value),)):
        raise TypeError("it is more than its attributes")
    items = {"items": to_plain(dict(value), path, lost)} if isinstance(value, dict) else {}
    attributes = {name: to_plain(item, f"{path}.{name}", lost) for name, item in attributes_of(value).items()}
    if not kind and items:
        return dict(items["items"])
    if not items and not attributes:
        raise TypeError("nothing in it can be seen")
    return {"__class__": kind or "types:SimpleNamespace", **items, "attributes": attributes}


def array_in_other_words(array: np.ndarray[Any, Any], path: str, lost: list[str]) -> dict[str, Any]:
    """An array as a tensor where there is one of this dtype, else as lists."""
    if array.dtype.kind in "biufc":
        return {"__class__": "torch:Tensor.numpy", "arguments": [torch.from_numpy(np.array(array, order="C"))]}
    items = (array.astype(str) if array.dtype.kind in "mM" else array).tolist()
    return {"__class__": "numpy:array", "arguments": [to_plain(items, path, lost), str(array.dtype)]}


def attributes_of(value: Any) -> dict[str, Any]:
    """An object's own attributes, in `__dict__`, slots or fields."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return dict(value._asdict())
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    names += [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    return {**{name: getattr(value, name) for name in names}, **getattr(value, "__dict__", {})}


def plain_key(key: Any, path: str, lost: list[str]) -> Any:
    """A key of a mapping."""
    if is_loadable(key):
        return key
    lost.append(f"{path}: the key {key!r} is a text there")
    return str(key)


def is_loadable(value: Any) -> bool:
    """Whether torch itself reads it back."""
    stream = io.BytesIO()
    try:
        torch.save(value, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True)
    except Exception:  # pickle lets through whatever an object's own methods raise
        return False
    return True


def importable(kind: type) -> str:
    """`module:name`, or "" for a class that another process could not find."""
    try:
        found = operator.attrgetter(kind.__qualname__)(importlib.import_module(kind.__module__))
    except (ImportError, AttributeError, ValueError):
        return ""
    return f"{kind.__module__}:{kind.__qualname__}" if found is kind and kind.__module__ != "__main__" else ""


def rebuild(value: Any) -> Any:
    """A batch as it was: in step.pt, what is of a class of its own is a mapping that says how to make it."""
    if type(value) in (tuple, list):
        return type(value)(rebuild(item) for item in value)
    if type(value) is not dict:
        return value
    node = {key: rebuild(item) for key, item in value.items()}
    if "__class__" not in node:
        return node
    module, _, name = node["__class__"].partition(":")
    kind = operator.attrgetter(name)(importlib.import_module(module))
    if "arguments" in node:
        return kind(*node["arguments"])
    made = kind.__new__(kind)
    if "items" in node:
        dict.update(made, node["items"])
    for name, attribute in node["attributes"].items():
        object.__setattr__(made, name, attribute)
    return made


def needs_rebuilding(value: Any) -> bool:
    """Whether there is such a mapping in it."""
    if type(value) is dict:
        return "__class__" in value or any(map(needs_rebuilding, value.values()))
    return type(value) in (tuple, list) and any(map(needs_rebuilding, value))
