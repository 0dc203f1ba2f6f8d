"""The rows of the layer table: layers one by one, or those that are alike folded into one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from gradcheck_cli.records import LayerSummary
from gradcheck_cli.report.view import View

FOLD_ABOVE = 40
VARIES = 10.0
DIGITS = re.compile("([0-9]{1,18})")
MEASURES = ("grad_rms", "grad_to_parameter", "update_ratio", "zero_fraction", "output_grad_rms")
Key = TypeVar("Key")
STATUSES = ("ok", "frozen", "not recorded", "no gradient", "info", "warning", "error")


@dataclass(frozen=True)
class Row:
    """One line, of `count` layers: `values` by measure; one that is absent stays blank, and without a `status` the
    line only details the one above.
    """

    name: str
    values: Mapping[str, float]
    count: int = 1
    type: str = ""
    status: str = ""
    codes: tuple[str, ...] = ()


def make_rows(layers: Sequence[LayerSummary], view: View) -> list[Row]:
    """In execution order; a folded row stands where its first layer does."""
    if view.depth is not None:
        keys = [shorten(layer.name, view.depth) for layer in layers]
        return [row for key, members in group(layers, keys).items() for row in fold(members, key)]
    if view.all_layers or len(layers) <= FOLD_ABOVE:
        return [row for layer in layers for row in fold([layer], layer.name)]
    # What differs in status stays apart: one sick block must not vanish among eleven healthy ones.
    alike = [(DIGITS.sub("0", layer.name), layer.type, layer.status, layer.codes) for layer in layers]
    return [row for members in group(layers, alike).values() for row in fold(members, fold_names(members))]


def group(layers: Sequence[LayerSummary], keys: Sequence[Key]) -> dict[Key, list[LayerSummary]]:
    """Layers by their keys, in the order of the first of each."""
    groups: dict[Key, list[LayerSummary]] = {}
    for layer, key in zip(layers, keys, strict=True):
        groups.setdefault(key, []).append(layer)
    return groups


def shorten(name: str, depth: int) -> str:
    """The first `depth` components of a name."""
    return ".".join(name.split(".")[:depth])


def fold(members: Sequence[LayerSummary], name: str) -> list[Row]:
    """A row of medians and, where the members are more than tenfold apart, one of minima and one of maxima."""
    if len(members) == 1:
        name = members[0].name
    known = {measure: known_values(members, measure) for measure in MEASURES}
    values = {measure: median(found) if found else math.nan for measure, found in known.items()}
    types = {member.type for member in members}
    row = Row(
        name,
        values,
        count=len(members),
        type=types.pop() if len(types) == 1 else "",
        status=max((member.status for member in members), key=STATUSES.index),
        codes=tuple(sorted({code for member in members for code in member.codes})),
    )
    varied = {measure: found for measure, found in known.items() if found and max(found) > VARIES * min(found)}
    if not varied:
        return [row]
    return [
        row,
        Row("min", {measure: min(found) for measure, found in varied.items()}),
        Row("max", {measure: max(found) for measure, found in varied.items()}),
    ]


def known_values(members: Iterable[LayerSummary], measure: str) -> list[float]:
    """What the members have of a measure, without NaN."""
    values: list[float] = [getattr(member, measure) for member in members]
    return [value for value in values if not math.isnan(value)]


def fold_names(members: Sequence[LayerSummary]) -> str:
    """One name for names that differ only in their numbers: blocks.{0-11}.fc; {0..28} has gaps."""
    pieces = zip(*(DIGITS.split(member.name) for member in members), strict=True)
    return "".join(number_range(set(piece)) for piece in pieces)


def number_range(numbers: set[str]) -> str:
    """The number, or the range of several."""
    if len(numbers) == 1:
        return min(numbers)
    first, *_, last = ordered = sorted(numbers, key=lambda number: (int(number), number))
    gapless = int(last) - int(first) == len(ordered) - 1
    return f"{{{first}{'-' if gapless else '..'}{last}}}"
