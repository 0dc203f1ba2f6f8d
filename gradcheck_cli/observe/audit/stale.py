"""Parameters that an optimizer still holds though the model has others in their place."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Suspect:
    """A parameter, and its gradient as it was: one that is left of something else does not change any more."""

    name: str
    parameter: Tensor
    gradient: Tensor
    version: int

    @property
    def still_trains(self) -> bool:
        """Whether a backward has reached it since."""
        gradient = self.parameter.grad
        return gradient is not None and (gradient is not self.gradient or gradient._version != self.version)


def find_suspects(own: Iterable[Tensor], optimized: Collection[int]) -> list[Suspect]:
    """Parameters with gradients that are in no optimizer, and have the shapes of own ones that get none.

    `optimized` are the identities of all parameters of all optimizers. To be asked while there are gradients. Python's
    objects are searched for modules only if there are own parameters without a gradient.
    """
    waiting = Counter(p.shape for p in own if p.requires_grad and p.grad is None)
    return [
        Suspect(name, parameter, parameter.grad, parameter.grad._version)
        for name, parameter in (named_parameters() if waiting else ())
        if parameter.grad is not None and id(parameter) not in optimized and waiting[parameter.shape] > 0
    ]


def find_stale(own: Iterable[Tensor], suspects: Iterable[Suspect]) -> tuple[str, ...]:
    """The names of those that train although nobody updates them, one for each own parameter without a gradient."""
    waiting = Counter(p.shape for p in own if p.requires_grad and p.grad is None)
    names = []
    for one in suspects:
        if one.still_trains and waiting[one.parameter.shape] > 0:
            waiting[one.parameter.shape] -= 1
            names.append(one.name)
    return tuple(names)


def named_parameters() -> Iterator[tuple[str, Tensor]]:
    """Those of all modules that are in no other one."""
    # type() and not isinstance(), which would ask lazy proxies what they are, and load what they stand for.
    modules = [one for one in gc.get_objects() if issubclass(type(one), nn.Module)]
    inner = {id(child) for module in modules for child in module.__dict__.get("_modules", {}).values()}
    for module in modules:
        if id(module) not in inner and "_parameters" in module.__dict__:
            yield from module.named_parameters()
