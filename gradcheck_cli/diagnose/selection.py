"""Which parameters and modules belong together."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from gradcheck_cli.records import ParameterInfo, Recording


def by_module(parameters: Iterable[ParameterInfo]) -> dict[str, list[ParameterInfo]]:
    """Parameters by the module that owns them, in the order given."""
    owned: dict[str, list[ParameterInfo]] = {}
    for parameter in parameters:
        owned.setdefault(parameter.module, []).append(parameter)
    return owned


def by_topmost_module(
    chosen: Collection[ParameterInfo], among: Iterable[ParameterInfo]
) -> dict[str, list[ParameterInfo]]:
    """The chosen parameters by the outermost module of which all parameters `among` those given are chosen.

    Where even its own module has others too, a parameter stands alone, under its own name. The root is never
    the answer: it says nothing about where.
    """
    names = {parameter.name for parameter in chosen}
    mixed = {module for p in among if p.name not in names for module in enclosing(p.module)}
    groups: dict[str, list[ParameterInfo]] = {}
    for parameter in chosen:
        whole = [module for module in enclosing(parameter.module) if module not in mixed]
        groups.setdefault(whole[0] if whole else parameter.name, []).append(parameter)
    return groups


def enclosing(name: str) -> list[str]:
    """A module and all around it but the root, outermost first: a.b is within a."""
    path = name.split(".") if name else []
    return [".".join(path[:length]) for length in range(1, len(path) + 1)]


def is_within(name: str, layer: str) -> bool:
    """Whether a module or parameter is `layer` or inside it."""
    return name == layer or name.startswith(f"{layer}.")


def pattern(name: str) -> str:
    """A name with `*` for its numbers: equal for the like parts of repeated blocks."""
    return re.sub(r"\d+", "*", name)


def by_pattern(names: Sequence[str]) -> dict[str, list[str]]:
    """Names by their pattern; a name without a like one stands under itself."""
    like: dict[str, list[str]] = {}
    for name in names:
        like.setdefault(pattern(name), []).append(name)
    return {key if len(group) > 1 else group[0]: group for key, group in like.items()}


def in_execution_order(recording: Recording, modules: Iterable[str]) -> list[str]:
    """Module names, the first to run first; those that were not seen to run come before all others."""
    order = {module.name: module.probe for module in recording.modules if module.probe is not None}
    return sorted(modules, key=lambda name: order.get(name, -1))
