"""What an adapter makes, and how it recognises a framework's object without importing the framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROFILE_SCRIPT = "profile the script that trains it: gradcheck profile train.py"


@dataclass(frozen=True)
class Adapted:
    """What `make_workload` reads, and what the report should say of how it came about."""

    returned: Any
    notes: tuple[str, ...] = ()


def base_of(value: Any, name: str, *packages: str) -> type | None:
    """The class called `name` of one of the packages that `value` is an instance of."""
    for kind in type(value).__mro__:
        if kind.__name__ == name and kind.__module__.partition(".")[0] in packages:
            return kind
    return None


def overrides(value: Any, base: type | None, name: str) -> bool:
    """Whether the class of `value` has a method of its own in the place of `base`'s."""
    return hasattr(value, name) and getattr(type(value), name, None) is not getattr(base, name, None)


def settings_note(accumulate: int, max_norm: float | None, precision: str) -> tuple[str, ...]:
    """The options that would train as the framework's trainer is set to, if any differ from gradcheck's defaults."""
    options = {
        f"--accumulate {accumulate}": accumulate > 1,
        f"--clip {max_norm or 0:g}": bool(max_norm),
        f"--precision {precision}": precision in ("bf16", "fp16"),
    }
    needed = " ".join(option for option, differs in options.items() if differs)
    return (f"the Trainer is set to {needed}: gradcheck follows its own options only",) if needed else ()
