"""What the ranks of a distributed run saw, as named arrays and plain data, for `archive`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradcheck_cli.ranks import Desync, Ranks, UnusedOnSome

REVIVED: Mapping[str, Callable[[Any], Any]] = {
    "hosts": tuple,
    "checked": tuple,
    "unused": lambda entries: tuple(UnusedOnSome(**{**one, "ranks": tuple(one["ranks"])}) for one in entries),
    "desyncs": lambda entries: tuple(Desync(**{**one, "ranks": tuple(one["ranks"])}) for one in entries),
}


def split(ranks: Ranks) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by dotted name, and everything else as plain data."""
    members = {field.name: getattr(ranks, field.name) for field in dataclasses.fields(ranks)}
    arrays = {f"ranks.{name}": value for name, value in members.items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in members.items() if not isinstance(value, np.ndarray)}
    described = {name: [dataclasses.asdict(one) for one in others[name]] for name in ("unused", "desyncs")}
    return arrays, others | described


def join(arrays: Mapping[str, Any], plain: Mapping[str, Any]) -> Ranks:
    """The ranks that were split. Raises TypeError where a part is missing."""
    own = {name.removeprefix("ranks."): value for name, value in arrays.items() if name.startswith("ranks.")}
    return Ranks(**own, **{name: REVIVED.get(name, lambda value: value)(value) for name, value in plain.items()})
