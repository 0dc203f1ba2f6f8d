"""Parameters that an optimizer still holds though the model has others in their place."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from torch import Tensor, nn


def find_stale(own: Iterable[Tensor], optimized: Collection[int]) -> tuple[str, ...]:
    """The names of parameters that get gradients, are in no optimizer, and have the shapes of own ones that get none.

    `optimized` are the identities of all parameters of all optimizers. To be asked while there are gradients. Python's
    objects are searched for modules only if there are own parameters without a gradient.
    """
    waiting = Counter(p.shape for p in own if p.requires_grad and p.grad is None)
    names = []
    if waiting:
        for name, parameter in named_parameters():
            if parameter.grad is not None and id(parameter) not in optimized and waiting[parameter.shape] > 0:
                waiting[parameter.shape] -= 1
                names.append(name)
    return tuple(names)


def named_parameters() -> Iterator[tuple[str, Tensor]]:
    """Those of all modules that are in no other one."""
    # type() and not isinstance(), which would ask lazy proxies what they are, and load what they stand for.
    modules = [one for one in gc.get_objects() if issubclass(type(one), nn.Module)]
    inner = {id(child) for module in modules for child in module.__dict__.get("_modules", {}).values()}
    for module in modules:
        if id(module) not in inner and "_parameters" in module.__dict__:
            yield from module.named_parameters()
