"""Settings: flags over gradcheck.yaml over [tool.gradcheck] in pyproject.toml over defaults."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from gradcheck_cli.config_values import (
    Kind,
    choice,
    flag,
    mapping,
    number,
    optional,
    severities,
    text,
    texts,
    whole_number,
)
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.records import Severity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def setting(default: Any, kind: Kind) -> Any:
    """A field that a configuration file may set; `kind` reads its value."""
    return field(default=default, metadata={"kind": kind})


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen. The names are those of the flags and of the configuration's keys."""

    steps: int = setting(50, whole_number(1))
    device: str = setting("auto", text())
    precision: str = setting("fp32", choice("fp32", "bf16", "fp16"))
    accumulate: int = setting(1, whole_number(1))
    clip: float | None = setting(None, optional(number(above=0)))
    seed: int = setting(0, whole_number(0))
    set: Mapping[str, Any] = field(default_factory=dict, metadata={"kind": mapping()})
    optimizer: str | None = setting(None, optional(text()))
    lr: float | None = setting(None, optional(number(above=0)))
    checkpoint: str | None = setting(None, optional(text()))
    eval: bool = setting(False, flag())
    eager: bool = setting(False, flag())
    probe_every: int = setting(10, whole_number(0))
    max_recorded_steps: int = setting(10_000, whole_number(2))
    stop_above: float | None = setting(None, optional(number(above=0)))
    keep_going: bool = setting(False, flag())
    large: float = setting(100.0, number(above=0))
    tiny: float = setting(1e-8, number(above=0))
    select: tuple[str, ...] = setting((), texts())
    ignore: tuple[str, ...] = setting((), texts())
    severity: Mapping[str, Severity] = field(default_factory=dict, metadata={"kind": severities()})
    fail_on: str = setting("error", choice("error", "warning", "never"))
    format: str = setting("table", text())
    output: tuple[str, ...] = setting((), texts())
    quiet: bool = setting(False, flag())


KINDS: dict[str, Kind] = {entry.name: entry.metadata["kind"] for entry in fields(Settings)}


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Settings from the flags that were given, a configuration file, and defaults.

    `config` names the file; without it gradcheck.yaml, then pyproject.toml, of the working directory are looked
    at. Raises ConfigError for a file that cannot be read, and for a key or value that is not known, with its line.
    """
    values = dict(read_config(config))
    values.update({name: check(name, value, f"--{name.replace('_', '-')}") for name, value in flags.items()})
    return Settings(**values)


def read_config(config: Path | None) -> dict[str, Any]:
    """The checked values of the configuration file, if there is one."""
    if config is not None:
        return read_toml(config) if config.suffix == ".toml" else read_yaml(config)
    if Path("gradcheck.yaml").is_file():
        return read_yaml(Path("gradcheck.yaml"))
    return read_toml(Path("pyproject.toml")) if Path("pyproject.toml").is_file() else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """The checked values of a YAML file."""
    source = read_source(path)
    try:
        content = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}", "mend the YAML") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected keys and values, found {type(content).__name__}", "write `steps: 100`, say"
        )
    return check_all(content, path, source)


def read_toml(path: Path) -> dict[str, Any]:
    """The checked values of [tool.gradcheck] in a TOML file."""
    source = read_source(path)
    try:
        content = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", "mend the TOML") from error
    return check_all(content.get("tool", {}).get("gradcheck", {}), path, source)


def read_source(path: Path) -> str:
    """The text of a configuration file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "--config takes a YAML or TOML file") from error


def check_all(content: Mapping[Any, Any], path: Path, source: str) -> dict[str, Any]:
    """The values by the names of Settings; raises ConfigError with the line of a key that does not fit."""
    checked = {}
    for key, value in content.items():
        where = f"{path}{line_of(str(key), source)}"
        name = str(key).replace("-", "_")
        if name not in KINDS:
            close = difflib.get_close_matches(name, KINDS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(KINDS)}"
            raise ConfigError(f"{where}: unknown key {key!r}", hint)
        checked[name] = check(name, value, f"{where}: {key}")
    return checked


def line_of(key: str, source: str) -> str:
    """ ":12" for the first line that sets the key, "" if none does."""
    for number_, line in enumerate(source.splitlines(), start=1):
        if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[:=]""", line):
            return f":{number_}"
    return ""


def check(name: str, value: Any, where: str) -> Any:
    """The value of a setting in its own type; raises ConfigError that says where and what it should be."""
    kind = KINDS[name]
    try:
        return kind.read(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} must be {kind.words}, not {value!r}", str(error)) from error
