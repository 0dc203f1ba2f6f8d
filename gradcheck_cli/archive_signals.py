"""Signals as named arrays and plain data, for `archive`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradcheck_cli.signals import (
    ActivationSignals,
    AttentionSignals,
    BlockSignals,
    LayerSignals,
    RecurrenceSignals,
    RecurrentMatrix,
    Signals,
    Site,
    WeightSignals,
)

TABLES = {
    "layers": LayerSignals,
    "activations": ActivationSignals,
    "attention": AttentionSignals,
    "blocks": BlockSignals,
    "recurrence": RecurrenceSignals,
    "weights": WeightSignals,
}
MEMBERS: Mapping[str, Callable[[Any], Any]] = {
    "sites": lambda entries: tuple(Site(**entry) for entry in entries),
    "names": tuple,
    "recurrent": lambda entries: tuple(RecurrentMatrix(**entry) for entry in entries),
}


def split(signals: Signals) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by dotted name, and everything else as plain data by table."""
    arrays, plain = {}, {}
    for name, value in members(signals).items():
        if isinstance(value, np.ndarray):
            arrays[f"signals.{name}"] = value
            continue
        own = members(value)
        arrays |= {f"signals.{name}.{key}": item for key, item in own.items() if isinstance(item, np.ndarray)}
        plain[name] = {key: plainly(item) for key, item in own.items() if not isinstance(item, np.ndarray)}
    return arrays, plain


def join(arrays: Mapping[str, Any], plain: Mapping[str, Any]) -> Signals:
    """The signals that were split. Raises KeyError where a part is missing."""
    values: dict[str, Any] = {name: table(name, kind, arrays, plain[name]) for name, kind in TABLES.items()}
    own = [field.name for field in dataclasses.fields(Signals) if field.name not in TABLES]
    return Signals(**values, **{name: arrays[f"signals.{name}"] for name in own})


def table(name: str, kind: type[Any], arrays: Mapping[str, Any], plain: Mapping[str, Any]) -> Any:
    """One of TABLES."""
    return kind(
        **{
            field.name: MEMBERS[field.name](plain[field.name])
            if field.name in MEMBERS
            else arrays[f"signals.{name}.{field.name}"]
            for field in dataclasses.fields(kind)
        }
    )


def members(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, not gone into."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def plainly(entries: tuple[Any, ...]) -> list[Any]:
    """Entries with named members as mappings."""
    return [entry if isinstance(entry, str) else plain(entry) for entry in entries]


def plain(entry: Site | RecurrentMatrix) -> dict[str, Any]:
    """Its members by name."""
    return entry._asdict() if isinstance(entry, Site) else members(entry)
