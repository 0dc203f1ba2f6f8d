"""What an adapter makes, and how it recognises a framework's object without importing the framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROFILE_SCRIPT = "profile the script that trains it: gradcheck profile train.py"


@dataclass(frozen=True)
class Adapted:
    """What `make_workload` reads, and what the report should say of how it came about.

    `trainer` is how the framework's Trainer is set, by names of Settings: `accumulate`, `clip` (None: not at all),
    `precision`. `join` is given the batches of each optimizer step before they are used, and may add to them.
    """

    returned: Any
    notes: tuple[str, ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    join: Callable[[Sequence[Any]], list[Any]] = list


def base_of(value: Any, name: str, *packages: str) -> type | None:
    """The class called `name` of one of the packages that `value` is an instance of."""
    for kind in type(value).__mro__:
        if kind.__name__ == name and kind.__module__.partition(".")[0] in packages:
            return kind
    return None


def overrides(value: Any, base: type | None, name: str) -> bool:
    """Whether the class of `value` has a method of its own in the place of `base`'s."""
    return hasattr(value, name) and getattr(type(value), name, None) is not getattr(base, name, None)
