"""What a command is to run: a callable in the user's code, or a whole script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck_cli.config_flags import as_flag
from gradcheck_cli.errors import ConfigError

OF_ENTRYPOINTS = ("device", "precision", "accumulate", "clip", "seed", "set", "optimizer", "lr", "checkpoint", "eval")
"""Settings of a loop that is ours; a script has its own."""


@dataclass(frozen=True)
class Script:
    """A file, or with `is_module` a dotted module, and the arguments of its own."""

    place: str
    arguments: tuple[str, ...] = ()
    is_module: bool = False

    @property
    def words(self) -> str:
        """As it would be typed after `python`."""
        return shlex.join([*(["-m"] if self.is_module else []), self.place, *self.arguments])


def read_target(target: str | None, module: str | None, arguments: Sequence[str] | None) -> str | Script:
    """A script where `module` is given or `target` is a bare .py path, else `target` as it is.

    Raises ConfigError where there is none, or arguments for one that takes none.
    """
    given = tuple(arguments or ())
    if module is not None:  # then all that is not an option belongs to it
        return Script(module, (*([target] if target is not None else []), *given), is_module=True)
    if target is None:
        raise ConfigError("no TARGET is given", "gradcheck profile train.py -- --epochs 1, or train.py:build, say")
    if target.endswith(".py"):
        return Script(target, given)
    if given:
        raise ConfigError(
            f"{target} takes no arguments {shlex.join(given)}",
            "give a callable its arguments with --set NAME=VALUE; only a script, train.py, takes what is behind --",
        )
    return target


def check_flags(target: str | Script, flags: Mapping[str, Any], also: Sequence[str] = ()) -> None:
    """Raise ConfigError for flags that a script decides by itself, and for those of `also`."""
    refused = [as_flag(name) for name in (*OF_ENTRYPOINTS, *also) if name in flags]
    if isinstance(target, Script) and refused:
        raise ConfigError(
            f"{target.place} is run as it is, so it can't be given {', '.join(refused)}",
            f"give the script its own arguments behind --, or name a callable: {target.place}:build",
        )


def check_verify(target: str | Script | None, flags: Mapping[str, Any]) -> None:
    """Raise ConfigError where a script should be trained again with other clipping."""
    asked = [as_flag(name) for name in ("verify", "verify_against") if name in flags]
    if isinstance(target, Script) and asked:
        raise ConfigError(
            f"{' and '.join(asked)} would train again with other clipping, and {target.place} is run as it is",
            f"let it clip at the value and run this again, or name a callable: {target.place}:build",
        )
