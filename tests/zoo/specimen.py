"""What the zoo is made of: entrypoints of small models, each with what gradcheck must say of it.

A specimen is an entrypoint (no arguments, the mapping of the contract) under `@healthy` or `@broken`. It takes a second
or so; the seed is set before it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradcheck_cli.records import Severity

Entrypoint = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Specimen:
    """A model that is healthy (`codes` is empty), or in which each of `codes` must be found: its fault, of classics the
    symptom as well.

    `severity` is the least that these findings have. `settings` other than those of the runner. `quick` ones are in the
    test suite. `needs` names a package that is not among gradcheck's own.
    """

    entrypoint: Entrypoint
    codes: tuple[str, ...] = ()
    severity: Severity = Severity.WARNING
    quick: bool = False
    needs: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The entrypoint's name, which is the model's."""
        return self.entrypoint.__name__

    @property
    def target(self) -> str:
        """As on the command line."""
        return f"{self.entrypoint.__module__}:{self.name}"

    @property
    def file(self) -> Path:
        """Where the entrypoint stands."""
        return Path(inspect.getfile(self.entrypoint))

    @property
    def missing(self) -> str:
        """The package that it needs and that is not installed, or ""."""
        return "" if not self.needs or importlib.util.find_spec(self.needs) else self.needs


SPECIMENS: list[Specimen] = []


def healthy(quick: bool = False, needs: str = "", **settings: Any) -> Callable[[Entrypoint], Entrypoint]:
    """Register a model that trains well."""

    def register(entrypoint: Entrypoint) -> Entrypoint:
        SPECIMENS.append(Specimen(entrypoint, quick=quick, needs=needs, settings=settings))
        return entrypoint

    return register


def broken(
    *codes: str, severity: str = "warning", quick: bool = False, needs: str = "", **settings: Any
) -> Callable[[Entrypoint], Entrypoint]:
    """Register a model in which all of `codes` must be found, at least so severe."""

    def register(entrypoint: Entrypoint) -> Entrypoint:
        SPECIMENS.append(Specimen(entrypoint, codes, Severity(severity), quick, needs, settings))
        return entrypoint

    return register


def load_zoo() -> list[Specimen]:
    """All specimens, whichever files register them."""
    for path in sorted(Path(__file__).parent.glob("*_models*.py")):
        importlib.import_module(f"{__package__}.{path.stem}")
    return SPECIMENS
