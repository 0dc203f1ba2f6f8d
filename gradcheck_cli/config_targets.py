"""Targets that a configuration gives names to, each with settings of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradcheck_cli.config import TARGETS, check_values
from gradcheck_cli.config_files import ConfigFile, find_configs
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.targets import Script, read_target

PLACE = ("target", "module", "arguments")
"""What says where a target is; all other keys are settings."""


@dataclass(frozen=True)
class NamedTarget:
    """What a name stands for; `own` are its settings, by the names of `Settings`."""

    name: str
    target: str | Script
    own: Mapping[str, Any]


def find_target(
    target: str | None, module: str | None, arguments: Sequence[str] | None, config: Path | None
) -> tuple[str | Script, Mapping[str, Any]]:
    """What to run, and the settings that the configuration has for it alone.

    A name of the configuration's goes before anything else that it might mean. Raises ConfigError where `read_target`
    does, and for a configuration that cannot be read.
    """
    named = read_targets(config)
    if target in named and module is None:
        found = named[target]
        if not arguments:
            return found.target, found.own
        if isinstance(found.target, Script):
            return replace(found.target, arguments=tuple(arguments)), found.own
    if target is None and module is None and named:
        raise ConfigError("no TARGET is given", f"name one: {', '.join(named)}; gradcheck profile --all runs them all")
    return read_target(target, module, arguments), {}


def find_script(
    script: str | None, module: str | None, arguments: Sequence[str] | None, config: Path | None
) -> tuple[Script, Mapping[str, Any]]:
    """As `find_target`; raises ConfigError for a callable, too."""
    found, own = find_target(script, module, arguments, config)
    if isinstance(found, Script):
        return found, own
    raise ConfigError(f"{found} is no script", "the loop around a callable is gradcheck's own: audit train.py instead")


def read_targets(config: Path | None) -> dict[str, NamedTarget]:
    """All named targets by name, in the order of the files. Raises ConfigError, with the line of what is wrong."""
    targets: dict[str, NamedTarget] = {}
    for file in find_configs(config):
        members = file.values.get(TARGETS) or {}
        if not isinstance(members, Mapping):
            raise ConfigError(f"{file.where(TARGETS)}: targets must be names with settings", "targets: {cnn: ...}")
        targets |= {str(name): read_named(file, name, values) for name, values in members.items()}
    return targets


def read_named(file: ConfigFile, name: Any, values: Any) -> NamedTarget:
    """One target; it may be given as a text alone."""
    members = {"target": values} if isinstance(values, str) else values
    if not isinstance(members, Mapping):
        raise ConfigError(f"{file.where(TARGETS, name)}: targets.{name} must be a target, or keys and values", EXAMPLE)
    for key in members:
        if key in PLACE and not is_text(key, members[key]):
            raise ConfigError(f"{file.where(TARGETS, name, key)}: targets.{name}.{key} must be text", EXAMPLE)
    if ("target" in members) == ("module" in members):
        raise ConfigError(f"{file.where(TARGETS, name)}: targets.{name} must have a target or a module", EXAMPLE)
    rest = {key: value for key, value in members.items() if key not in PLACE}
    own = check_values(file, rest, (TARGETS, str(name)), PLACE)
    return NamedTarget(str(name), read_target(*(members.get(key) for key in PLACE)), own)


def is_text(key: str, value: Any) -> bool:
    """Whether it is a string, or for the arguments a list of them."""
    if key == "arguments":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, str)


EXAMPLE = 'targets: {cnn: {target: "train.py:build", steps: 20}}'
