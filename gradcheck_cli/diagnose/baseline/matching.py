"""Which layer of the baseline is which layer of the run."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from gradcheck_cli.baseline import LayerMeasure
from gradcheck_cli.diagnose.selection import enclosing, pattern


@dataclass(frozen=True)
class Matching:
    """`names` maps each old name with a counterpart to its new one; `added` and `removed` have none."""

    names: Mapping[str, str]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def translate(self, name: str) -> str:
        """What a layer, a parameter, a module around layers or a pattern of the baseline is called now.

        The same where it was not renamed, or has no counterpart.
        """
        if name in self.names:
            return self.names[name]
        return next(filter(None, (carry_over(name, *pair) for pair in self.renamed.items())), name)


def carry_over(name: str, old: str, new: str) -> str:
    """What `name` has become when a layer `old` became `new`; "" where that does not tell.

    A pattern follows a layer that it fits, a module the layers within it, a parameter the layer that it is of.
    """
    if "*" in name:
        old, new = pattern(old), pattern(new)
    if name == old:
        return new
    if old and name.startswith(f"{old}."):
        return new + name[len(old) :]
    rest = old[len(name) :] if old.startswith(f"{name}.") else ""
    return new[: -len(rest)] if rest and new.endswith(rest) else ""


def match(old: Sequence[LayerMeasure], new: Sequence[LayerMeasure]) -> Matching:
    """Match layers by name, then by place and shape, then by shape and the end of the name, then by shape alone.

    Numbers in names are no names where their sequence has other members by now: the order counts there.
    """
    names: dict[str, str] = {}
    steady = find_steady(old, new)
    passes: list[Callable[[LayerMeasure], Hashable]] = [
        lambda one: (one.name, one.type) if steady(one.name) else None,
        lambda one: (pattern(one.name), one.type, one.shapes),
        *(by_ending(length) for length in range(longest(old, new), 0, -1)),
        lambda one: (one.type, one.shapes),
        lambda one: one.name,
    ]
    for key in passes:
        names.update(pair_up(old, new, names, key))
    found = set(names.values())
    return Matching(
        names=names,
        added=tuple(one.name for one in new if one.name not in found),
        removed=tuple(one.name for one in old if one.name not in names),
        renamed={before: now for before, now in names.items() if before != now},
    )


def pair_up(
    old: Sequence[LayerMeasure],
    new: Sequence[LayerMeasure],
    names: Mapping[str, str],
    key: Callable[[LayerMeasure], Hashable],
) -> Iterator[tuple[str, str]]:
    """Those not yet matched whose key is the same, in order; a key of None is no key."""
    taken, waiting = set(names.values()), dict[Hashable, list[str]]()
    for one in new:
        if one.name not in taken:
            waiting.setdefault(key(one), []).append(one.name)
    for one in old:
        if one.name not in names and (own := key(one)) is not None and waiting.get(own):
            yield one.name, waiting[own].pop(0)


def by_ending(length: int) -> Callable[[LayerMeasure], Hashable]:
    """The last parts of the name, as many as that, with type and shapes; None for a shorter name."""

    def key(one: LayerMeasure) -> Hashable:
        parts = pattern(one.name).split(".")
        return (tuple(parts[-length:]), one.type, one.shapes) if len(parts) >= length else None

    return key


def longest(*layers: Sequence[LayerMeasure]) -> int:
    """How many parts the longest name has."""
    return max((one.name.count(".") + 1 for side in layers for one in side), default=0)


def find_steady(old: Sequence[LayerMeasure], new: Sequence[LayerMeasure]) -> Callable[[str], bool]:
    """Tells of a name whether each number in it counts in a sequence that has the same members as before."""
    before, now = find_members(old), find_members(new)

    def steady(name: str) -> bool:
        return all(before.get(around) == now.get(around) for around in find_sequences(name))

    return steady


def find_members(layers: Sequence[LayerMeasure]) -> dict[str, set[tuple[str, str]]]:
    """What each sequence holds, by its name: numbers, and the types of those that are layers themselves."""
    members: dict[str, set[tuple[str, str]]] = {}
    for one in layers:
        for around in find_sequences(one.name):
            number, _, rest = one.name[len(around) :].lstrip(".").partition(".")
            members.setdefault(around, set()).add((number, "" if rest else one.type))
    return members


def find_sequences(name: str) -> list[str]:
    """The modules around a layer of which a number is the next part of its name."""
    whole = ["", *enclosing(name)]
    return [around for around, inner in pairwise(whole) if re.search(r"(^|\.)\d+$", inner)]
