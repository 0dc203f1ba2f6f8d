"""Values kept and put back: tensors, arrays and containers stay the same objects, for others may hold them too."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict, Counter)  # subclasses may refuse to be filled again
LONG = 64
DEEP = 4
LARGE_BYTES = 1 << 20


class KeptTensor:
    """A tensor and its values. In a graph it is not copied, nor a large one that nobody ever wrote to: it is data."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        is_data = tensor.nbytes > LARGE_BYTES and not tensor.is_inference() and not tensor._version
        self._values = tensor.detach().clone() if tensor.grad_fn is None and not is_data else None

    def restore(self) -> Tensor:
        """The same tensor with its old values; to be called without gradients being recorded."""
        if self._values is not None:
            write(self._tensor.detach(), self._values)
        return self._tensor


class KeptArray:
    """An array and its values; a large one is data, and is taken to stay as it is."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self._values = array.copy() if array.flags.writeable and array.nbytes <= LARGE_BYTES else None

    def restore(self) -> np.ndarray:
        """The same array with its old values."""
        if self._values is not None:
            self._array[...] = self._values
        return self._array


class KeptContainer:
    """A container and what was in it; the items of a long one, a vocabulary or a history, are not looked into."""

    def __init__(self, container: Any, depth: int) -> None:
        self._container = container
        self._items = copy.copy(container)
        if len(container) > LONG or depth <= 0 or isinstance(container, set):
            return
        if isinstance(container, dict):
            self._items = {key: keep_value(item, depth - 1) for key, item in container.items()}
        else:
            self._items = [keep_value(item, depth - 1) for item in container]

    def restore(self) -> Any:
        """The same container, filled again."""
        container, items = self._container, self._items
        is_dict = isinstance(container, dict)
        items = {k: kept_value(v) for k, v in items.items()} if is_dict else [kept_value(item) for item in items]
        container.clear()  # after its items were restored: it may be one of them
        (container.update if isinstance(container, (dict, set)) else container.extend)(items)
        return container


def keep_value(value: Any, depth: int = DEEP) -> Any:
    """A value from which `kept_value` can restore it; other objects are kept as they are, without what is in them."""
    if isinstance(value, Tensor):
        return KeptTensor(value)
    if isinstance(value, np.ndarray):
        return KeptArray(value)
    if type(value) in CONTAINERS:
        return KeptContainer(value, depth)
    if isinstance(value, tuple) and len(value) <= LONG and depth > 0:
        return rebuilt(value, [keep_value(item, depth - 1) for item in value])
    return value


def kept_value(value: Any) -> Any:
    """What was kept, in the state of then."""
    if isinstance(value, (KeptTensor, KeptArray, KeptContainer)):
        return value.restore()
    if isinstance(value, tuple) and len(value) <= LONG:
        return rebuilt(value, [kept_value(item) for item in value])
    return value


def rebuilt(value: tuple[Any, ...], items: list[Any]) -> Any:
    """A tuple of the same type with these items; the same one where nothing differs."""
    if all(one is other for one, other in zip(value, items, strict=True)):
        return value
    return type(value)._make(items) if hasattr(value, "_make") else tuple(items)


def write(tensor: Tensor, values: Tensor) -> None:
    """Copy into a tensor that may be expanded: of elements that share memory one is written."""
    if tensor.layout is torch.strided:
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if not stride and size > 1:
                tensor, values = tensor.narrow(dim, 0, 1), values.narrow(dim, 0, 1)
    tensor.copy_(values)
