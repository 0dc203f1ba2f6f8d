"""Kinds of values that a setting can have: how each is read, and what it is called in an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from gradcheck_cli.baseline import Tolerances
from gradcheck_cli.records import Severity

ONE_OR_MORE: Mapping[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


@dataclass(frozen=True)
class Kind:
    """`read` gives a value in its own type, or raises ValueError, TypeError or OverflowError.

    `words` names what it expects, `schema` is that as JSON Schema.
    """

    words: str
    read: Callable[[Any], Any]
    schema: Mapping[str, Any] = field(default_factory=dict)


def whole_number(minimum: int, maximum: int | None = None) -> Kind:
    """An int of at least `minimum`, and of at most `maximum` if there is one."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or int(value) != value or value < minimum:
            raise ValueError
        if maximum is not None and value > maximum:
            raise ValueError
        return int(value)

    schema = {"type": "integer", "minimum": minimum} | ({"maximum": maximum} if maximum else {})
    return Kind(f"a whole number of at least {minimum}" + (f" and at most {maximum}" if maximum else ""), read, schema)


def number(above: float, below: float = math.inf) -> Kind:
    """A finite float greater than `above` and less than `below`."""

    def read(value: Any) -> float:
        if isinstance(value, (bool, str)) or not above < float(value) < below:
            raise ValueError
        return float(value)

    schema = {"type": "number", "exclusiveMinimum": above} | ({"exclusiveMaximum": below} if below < math.inf else {})
    return Kind(f"a number above {above:g}" + (f" and below {below:g}" if below < math.inf else ""), read, schema)


def text() -> Kind:
    """A string."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        return value

    return Kind("a text", read, {"type": "string"})


def choice(*known: str) -> Kind:
    """One of a few strings."""

    def read(value: Any) -> str:
        if value not in known:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(known), read, {"enum": list(known)})


def flag() -> Kind:
    """True or False."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError
        return value

    return Kind("true or false", read, {"type": "boolean"})


def texts() -> Kind:
    """A list of strings; a single string is a list of what its commas separate."""

    def read(value: Any) -> tuple[str, ...]:
        items = value.split(",") if isinstance(value, str) else list(value)
        if not all(isinstance(item, str) for item in items):
            raise TypeError
        return tuple(part.strip() for item in items for part in item.split(",") if part.strip())

    return Kind("a list of texts", read, ONE_OR_MORE)


def paths(what: str = "paths") -> Kind:
    """A list of paths, or what else has commas; a single string is one, whatever is in it."""

    def read(value: Any) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else list(value)
        if not all(isinstance(item, str) for item in items):
            raise TypeError
        return tuple(items)

    return Kind(f"a list of {what}", read, ONE_OR_MORE)


def clips(*names: str) -> Kind:
    """Ways to clip, as texts: numbers above 0, and some names; a single value is a list of what its commas separate."""

    def check(text: str) -> str:
        return text if text in names else f"{number(above=0).read(float(text)):.15g}"

    def read(value: Any) -> tuple[str, ...]:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(map(check, texts().read([item if isinstance(item, str) else f"{item!r}" for item in items])))

    one = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
    return Kind(f"numbers above 0 or {' or '.join(names)}", read, {"anyOf": [one, {"type": "array", "items": one}]})


def mapping() -> Kind:
    """Names and values."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise TypeError
        return {str(name): item for name, item in value.items()}

    return Kind("names with values", read, {"type": "object"})


def severities() -> Kind:
    """Codes and severities."""

    def read(value: Any) -> dict[str, Severity]:
        return {name: Severity(item) for name, item in mapping().read(value).items()}

    levels = {"enum": [severity.value for severity in Severity]}
    return Kind("codes with error, warning or info", read, {"type": "object", "additionalProperties": levels})


def acceptances() -> Kind:
    """CODE=REASON or CODE:LAYER=REASON, one or more: what is accepted, and why."""

    def split(text: str) -> tuple[str, str]:
        wanted, _, reason = (part.strip() for part in text.partition("="))
        if not (wanted and reason):
            raise ValueError
        return wanted, reason

    def read(value: Any) -> tuple[tuple[str, str], ...]:
        return tuple(map(split, paths().read(value)))

    return Kind('CODE[:LAYER]=REASON, say GC103:head="kept for export"', read, ONE_OR_MORE)


def tolerances() -> Kind:
    """Names of measures, and how far each may move."""
    known = [entry.name for entry in fields(Tolerances)]

    def read(value: Any) -> dict[str, float]:
        given = {name.replace("-", "_"): number(above=0).read(item) for name, item in mapping().read(value).items()}
        if not given.keys() <= set(known):
            raise ValueError
        return given

    one = number(above=0)
    schema = {"type": "object", "properties": dict.fromkeys(known, one.schema), "additionalProperties": False}
    return Kind(f"{', '.join(known[:-1])} or {known[-1]} with {one.words}", read, schema)


def optional(kind: Kind) -> Kind:
    """The same, or None."""
    schema = {"anyOf": [kind.schema, {"type": "null"}]}
    return Kind(kind.words, lambda value: None if value is None else kind.read(value), schema)
