"""Where in the order of execution a finding lies."""

from __future__ import annotations

from typing import NamedTuple

from gradcheck_cli.diagnose.selection import enclosing, pattern
from gradcheck_cli.records import Finding, Recording


class Extent(NamedTuple):
    """From the first to the last layer, by their columns in the probe arrays, both included."""

    first: int
    last: int

    def meets(self, other: Extent) -> bool:
        """Whether they have a layer in common."""
        return self.first <= other.last and other.first <= self.last

    def joined(self, other: Extent) -> Extent:
        """All from the first layer of either to the last."""
        return Extent(min(self.first, other.first), max(self.last, other.last))


Extents = dict[str, Extent]


def extent(finding: Finding, extents: Extents) -> Extent:
    """The layers that a finding names, in its evidence or else as its layer; the whole model where none is known."""
    found = [extents[name] for name in layers_of(finding) if name in extents] or [extents[""]]
    joined = found[0]
    for one in found[1:]:
        joined = joined.joined(one)
    return joined


def layers_of(finding: Finding) -> list[str]:
    """The names of layers or parameters, in the evidence where it is more exact than the finding's layer."""
    evidence = finding.evidence
    for key in ("layers", "modules", "parameters"):
        if isinstance(evidence.get(key), (list, tuple)) and evidence[key]:
            return [str(name) for name in evidence[key]]
    if "first_layer" in evidence and "last_layer" in evidence:
        return [str(evidence["first_layer"]), str(evidence["last_layer"])]
    return [finding.layer] if finding.layer else []


def measure_extents(recording: Recording) -> Extents:
    """Of each module and parameter, by its name and by its pattern with `*` for numbers; "" is the whole model.

    A module that was not probed itself, such as an activation, lies with what comes before it in a sequence, and
    otherwise anywhere in the module around it.
    """
    extents = {"": Extent(0, max(0, len(recording.probed) - 1))}
    for column, module in enumerate(recording.probed):
        for name in enclosing(module.name):
            extents[name] = extents.get(name, Extent(column, column)).joined(Extent(column, column))
    place_others([module.name for module in recording.modules], extents)
    for parameter in recording.parameters:
        extents.setdefault(parameter.name, extents.get(parameter.module, extents[""]))
    for name, own in list(extents.items()):
        extents[pattern(name)] = extents.get(pattern(name), own).joined(own)
    return extents


def place_others(names: list[str], extents: Extents) -> None:
    """Add the modules that have no extent yet."""
    before: dict[str, Extent] = {}
    for name in sorted(names, key=by_number):
        parent, _, own = name.rpartition(".")
        beside = before.get(parent, Extent(0, 0)) if own.isdecimal() else extents.get(parent, extents[""])
        extents.setdefault(name, beside)
        if own.isdecimal():
            before[parent] = extents[name]


def by_number(name: str) -> list[tuple[int, str]]:
    """Sorts modules before what they contain, and those of a sequence by their numbers."""
    return [(int(part) if part.isdecimal() else -1, part) for part in name.split(".")]
