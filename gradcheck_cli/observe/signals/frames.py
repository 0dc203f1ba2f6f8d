"""Which module is at work: a frame for each call that has not returned."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from gradcheck_cli.signals import Site

CALLS = 8
CHANNELS_SECOND = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "SyncBatchNorm", "LazyConv")
QUIET = frozenset(
    {"linear", "conv", "batchnorm", "normalization", "container", "dropout", "flatten", "pooling", "sparse"}
)
SMOOTH = frozenset({nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU})
OWN_KIND = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}


@dataclass(frozen=True)
class Role:
    """What a module is: a function holds neither modules nor parameters, a layer only parameters.

    `is_whole`: what it returns as a whole is looked at. `is_quiet`: its forward is torch's own and calls no function of
    `activations.KINDS` but that of its own `kind`.
    """

    name: str
    module: nn.Module
    is_function: bool
    is_layer: bool
    channels_second: bool
    is_whole: bool
    is_quiet: bool
    kind: str


@dataclass(slots=True)
class Frame:
    """One call of a module; `counts` says how often it called each function so far, if any."""

    role: Role
    counts: dict[tuple[str, str], int] | None = None

    def count(self, key: tuple[str, str]) -> int:
        """The how-manieth call of a function this is, from 0."""
        if self.counts is None:
            self.counts = {}
        known = self.counts[key] = self.counts.get(key, 0) + 1
        return known - 1


class Frames:
    """The frames from the outermost call to the innermost."""

    def __init__(self) -> None:
        self.open: list[Frame] = []
        self._channels_second = False

    def is_open(self) -> bool:
        """Whether a call has not returned yet."""
        return bool(self.open)

    def enter(self, role: Role) -> None:
        """A module is called."""
        self.open.append(Frame(role))

    def leave(self, role: Role) -> None:
        """It returned, or what it called raised."""
        while self.open and self.open.pop().role is not role:
            pass
        if role.is_layer:
            self._channels_second = role.channels_second

    def clear(self) -> None:
        """Forget every call."""
        self.open.clear()

    @property
    def inner(self) -> nn.Module:
        """The innermost module at work."""
        return self.open[-1].role.module

    def site(self, kind: str) -> Site:
        """Where a function of this kind is called; from the CALLS-th call within one call on, they share a site.

        An activation that is a module counts within the module around it, which may use it several times.
        """
        inner = self.open[-1]
        home = self.open[-2] if inner.role.is_function and len(self.open) > 1 else inner
        return Site(inner.role.name, kind, min(home.count((inner.role.name, kind)), CALLS - 1))

    def unit_dim(self, dims: int) -> int:
        """The dimension of units or channels of an activation with so many dimensions, by the layer before it."""
        return 1 if self._channels_second and dims > 2 else dims - 1


def role_of(name: str, module: nn.Module, is_block: bool) -> Role:
    """What a module is."""
    has_modules = any(True for _ in module.children())
    has_parameters = any(True for _ in module.parameters(recurse=False))
    return Role(
        name,
        module,
        is_function=not has_modules and not has_parameters,
        is_layer=has_parameters and not has_modules,
        channels_second=type(module).__name__.startswith(CHANNELS_SECOND),
        is_whole=is_block or not name or isinstance(module, nn.RNNCellBase),
        is_quiet=is_quiet(module),
        kind=OWN_KIND.get(type(module), ""),
    )


def is_quiet(module: nn.Module) -> bool:
    """Whether nothing need be heard of what it calls: what it does is known by its class alone."""
    own = type(module).__module__.rpartition(".")
    is_known = type(module) in OWN_KIND or type(module) in SMOOTH or (own[0] == "torch.nn.modules" and own[2] in QUIET)
    return is_known and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
