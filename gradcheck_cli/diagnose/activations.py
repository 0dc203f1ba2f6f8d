"""Which function follows a layer, and which layer feeds a function, as far as names and the order of calls tell."""

from __future__ import annotations

from collections import Counter

from gradcheck_cli.diagnose.selection import enclosing
from gradcheck_cli.records import ModuleInfo, Recording
from gradcheck_cli.signals import Site

RECTIFYING = ("relu", "gelu", "silu", "swish", "elu", "mish", "softplus")
SATURATING = ("tanh", "sigmoid", "softsign")
Votes = dict[str, Counter[str]]


def family_of(kind: str) -> str:
    """What a function, or a module's type, is to initialisation: relu, tanh or linear; "" for anything else."""
    name = kind.lower()
    if name == "selu":
        return "linear"
    if any(word in name for word in RECTIFYING):
        return "relu"
    return "tanh" if any(word in name for word in SATURATING) else ""


def is_norm(kind: str) -> bool:
    """Whether modules of this type normalise."""
    return "norm" in kind.lower()


def parent_of(name: str) -> str:
    """The module around a module."""
    return name.rpartition(".")[0]


def number_of(name: str) -> int | None:
    """The place of a module in a sequence; None for one that has a name of its own."""
    own = name.rpartition(".")[2]
    return int(own) if own.isdecimal() else None


def find_families(recording: Recording) -> dict[str, str]:
    """What follows each probed module: relu, tanh, linear or norm.

    In a sequence, the next activation or normalisation; elsewhere a normalisation that runs next, or else what is the
    most frequent in the nearest module around it that has any activation.
    """
    votes = count_families(recording)
    order = recording.probed
    return {
        module.name: "norm"
        if following and is_norm(following.type)
        else find_in_sequence(recording, module.name) or most_frequent(votes, module.name)
        for module, following in zip(order, [*order[1:], None], strict=True)
    }


def find_in_sequence(recording: Recording, layer: str) -> str:
    """The family of the activation that stands behind a layer in a sequence, before the next layer; else ""."""
    for sibling in siblings_behind(recording, layer):
        if is_norm(sibling.type):
            return "norm"
        if sibling.probe is not None:
            return ""
        if family := family_of(sibling.type):
            return family
    return ""


def siblings_behind(recording: Recording, name: str) -> list[ModuleInfo]:
    """The modules behind one in its sequence, in order; none where it has a name instead of a number."""
    own, parent = number_of(name), parent_of(name)
    if own is None:
        return []
    numbered = [(number_of(module.name), module) for module in recording.modules if parent_of(module.name) == parent]
    behind = [(number, module) for number, module in numbered if number is not None and number > own]
    return [module for _, module in sorted(behind, key=lambda pair: pair[0])]


def count_families(recording: Recording) -> Votes:
    """How many activations of each family there are in each module, at any depth."""
    votes: Votes = {}
    containers = find_containers(recording)
    seen = [(module.name, module.type) for module in recording.modules if module.name not in containers]
    if recording.signals:
        seen += [(site.module, site.kind) for site in recording.signals.activations.sites]
    for name, kind in seen:
        if family := family_of(kind):
            for scope in ["", *enclosing(name)]:
                votes.setdefault(scope, Counter())[family] += 1
    return votes


def most_frequent(votes: Votes, layer: str) -> str:
    """The family in the nearest module around a layer that has one, relu in a draw: gates stand beside it.

    Linear where there is none at all.
    """
    around = [*reversed(enclosing(parent_of(layer))), ""]
    counter = next((votes[scope] for scope in around if scope in votes), Counter({"linear": 1}))
    return max(("relu", "tanh", "linear"), key=lambda family: counter[family])


def find_containers(recording: Recording) -> set[str]:
    """The modules that hold modules."""
    return {parent_of(module.name) for module in recording.modules if module.name}


def find_feeding_layers(recording: Recording) -> dict[Site, str]:
    """The layer whose output each function gets; where that can't be told, the module that calls the function.

    In a sequence it is the layer before. Elsewhere the layers of the module that calls the function are numbered in
    the order of execution, and so are the functions, unless there are more of these than of layers.
    """
    if recording.signals is None:
        return {}
    containers = find_containers(recording)
    callers: dict[str, list[Site]] = {}
    for site in recording.signals.activations.sites:
        callers.setdefault(caller_of(site, containers), []).append(site)
    layers: dict[str, list[str]] = {}
    for module in recording.probed:
        if module.name and not is_norm(module.type):
            layers.setdefault(parent_of(module.name), []).append(module.name)
    return {
        site: find_feeding_layer(site, caller, layers.get(caller, []), sites)
        for caller, sites in callers.items()
        for site in sites
    }


def caller_of(site: Site, containers: set[str]) -> str:
    """The module in whose forward a function is called: the one around it where the function is a module itself."""
    return site.module if site.module in containers else parent_of(site.module)


def find_feeding_layer(site: Site, caller: str, layers: list[str], sites: list[Site]) -> str:
    """Which of the caller's `layers` feeds this one of its functions (`sites`), else the caller."""
    own = number_of(site.module)
    if site.module != caller and own is not None:
        before = [name for name in layers if (number_of(name) or 0) < own]
        return before[-1] if before else caller
    return layers[sites.index(site)] if len(sites) <= len(layers) else caller
