"""What nan-trace must find: failing cases, each with its marked line, and controls that must stay silent.

A case is an entrypoint (no arguments, the mapping of the contract) under `@case`. The line that makes the first
harmful non-finite value ends in the comment `# origin`; a case with two independent origins marks two lines.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entrypoint = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """What nan-trace must say of an entrypoint.

    `phase`: forward, loss, backward, clip, optimizer, data, parameter, buffer. `op`: the forward operator's name
    ("aten::sqrt") or several that are right (they differ between builds of torch), "" for a value from outside.
    `kind`: nan or inf, what the origin makes. `cause`: the catalogue's identifier. `source`: for a value from outside
    "batch:[0]['x']", "parameter:fc.weight", "buffer:norm.running_var". `step`, `micro_batch`: where it happens first.
    `samples`: those of the micro-batch that do it alone, None where that is not asked. `error`: torch raises.
    `settings`: other than the defaults (precision, accumulate, clip, steps).
    """

    entrypoint: Entrypoint
    phase: str
    op: str | tuple[str, ...] = ""
    kind: str = "nan"
    cause: str = ""
    source: str = ""
    step: int = 0
    micro_batch: int = 0
    samples: tuple[int, ...] | None = None
    error: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The entrypoint's name."""
        return self.entrypoint.__name__

    @property
    def target(self) -> str:
        """As on the command line."""
        return f"{self.file}:{self.name}"

    @property
    def file(self) -> Path:
        """Where the entrypoint stands."""
        return Path(inspect.getfile(self.entrypoint))

    @property
    def lines(self) -> list[int]:
        """The marked lines, counted from 1 in the file."""
        source, first = inspect.getsourcelines(self.entrypoint)
        return [first + i for i, line in enumerate(source) if line.rstrip().endswith("# origin")]


CASES: list[Case] = []
CONTROLS: list[Case] = []


def case(**expected: Any) -> Callable[[Entrypoint], Entrypoint]:
    """Register an entrypoint that fails, with what must be said of it."""

    def register(entrypoint: Entrypoint) -> Entrypoint:
        CASES.append(Case(entrypoint, **expected))
        return entrypoint

    return register


def control(**settings: Any) -> Callable[[Entrypoint], Entrypoint]:
    """Register an entrypoint in which nothing harmful happens; `settings` other than the defaults."""

    def register(entrypoint: Entrypoint) -> Entrypoint:
        CONTROLS.append(Case(entrypoint, "", settings=settings))
        return entrypoint

    return register
