"""Modules that a script put in eval mode, and what is inactive in them because of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import ref

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from gradcheck_cli.audit import EvalSeen
from gradcheck_cli.observe.audit.gradients import Gradients
from gradcheck_cli.observe.audit.sites import Line, location_of


@dataclass
class Tracked:
    """A module on which `eval` was called. `inactive` holds until another mode changes; None: not looked at yet."""

    module: ref[nn.Module]
    type: str
    line: Line | None
    inactive: tuple[str, ...] | None = None
    layers: tuple[str, ...] = ()
    wholly: set[int] = field(default_factory=set)
    partly: set[int] = field(default_factory=set)


class Modes:
    """All modules that were put in eval mode by name; their numbers are those of `LoopAudit.evals`."""

    def __init__(self) -> None:
        self._tracked: list[Tracked] = []

    def change(self, module: nn.Module, training: bool, line: Line | None) -> None:
        """`module.train(training)` was called."""
        for one in self._tracked:
            one.inactive = None
        if training:
            return
        for one in self._tracked:
            if one.module() is module:
                one.line = line
                return
        self._tracked.append(Tracked(ref(module), type(module).__name__, line))

    def inactive(self, reached: Iterable[Gradients]) -> tuple[int, ...]:
        """The modules in eval mode that hold parameters which just got gradients, and layers that this changes."""
        if not self._tracked:
            return ()
        reached = list(reached)
        return tuple(number for number, one in enumerate(self._tracked) if reached and holds(one, reached))

    def seen(self) -> tuple[EvalSeen, ...]:
        """All of them as plain values."""
        return tuple(
            EvalSeen(one.type, one.layers, location_of(one.line), tuple(sorted(one.wholly)), tuple(sorted(one.partly)))
            for one in self._tracked
        )


def holds(one: Tracked, reached: Iterable[Gradients]) -> bool:
    """Whether a module is in eval mode, with something inactive in it, and parameters of the optimizers."""
    module = one.module()
    if module is None or module.training:
        return False
    if one.inactive is None:
        one.inactive = tuple(dict.fromkeys(type(m).__name__ for m in module.modules() if is_inactive(m)))
    if not one.inactive:
        return False
    one.layers = one.inactive
    for gradients in reached:
        if gradients.number not in one.wholly | one.partly:
            place(one, module, gradients)
    return any(gradients.number in one.wholly | one.partly for gradients in reached)


def place(one: Tracked, module: nn.Module, gradients: Gradients) -> None:
    """Note whether a module holds all or some of an optimizer's parameters that get gradients."""
    own = {id(parameter) for parameter in module.parameters()}
    trained = {id(parameter) for parameter in gradients.parameters if parameter.grad is not None}
    if trained and trained <= own:
        one.wholly.add(gradients.number)
    elif trained & own:
        one.partly.add(gradients.number)


def is_inactive(module: nn.Module) -> bool:
    """Whether eval mode changes what it computes."""
    if module.training:
        return False
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout > 0
    return isinstance(module, _BatchNorm) and module.track_running_stats
