"""Which module is at work: a frame for each call that has not returned."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from gradcheck_cli.signals import Site

CALLS = 8
CHANNELS_SECOND = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "SyncBatchNorm", "LazyConv")


@dataclass
class Frame:
    """One call of a module; `counts` says how often it called each function so far."""

    name: str
    module: nn.Module
    is_function: bool
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)


class Frames:
    """The frames from the outermost call to the innermost."""

    def __init__(self) -> None:
        self._open: list[Frame] = []
        self._channels_second = False

    def __bool__(self) -> bool:
        return bool(self._open)

    def enter(self, name: str, module: nn.Module) -> None:
        """A module is called."""
        self._open.append(Frame(name, module, is_function(module)))

    def leave(self, module: nn.Module) -> None:
        """It returned, or what it called raised."""
        while self._open and self._open.pop().module is not module:
            pass
        if not is_function(module) and not any(True for _ in module.children()):
            self._channels_second = type(module).__name__.startswith(CHANNELS_SECOND)

    @property
    def inner(self) -> Frame:
        """The innermost call."""
        return self._open[-1]

    def site(self, kind: str) -> Site:
        """Where a function of this kind is called; from the CALLS-th call within one call on, they share a site.

        An activation that is a module counts within the module around it, which may use it several times.
        """
        inner = self._open[-1]
        home = self._open[-2] if inner.is_function and len(self._open) > 1 else inner
        key = inner.name, kind
        home.counts[key] += 1
        return Site(inner.name, kind, min(home.counts[key], CALLS) - 1)

    def unit_dim(self, dims: int) -> int:
        """The dimension of units or channels of an activation with so many dimensions, by the layer before it."""
        return 1 if self._channels_second and dims > 2 else dims - 1


def is_function(module: nn.Module) -> bool:
    """Whether a module holds neither modules nor parameters."""
    return not any(True for _ in module.children()) and not any(True for _ in module.parameters(recurse=False))
