"""Configuration files and `--set` values as plain values, with the line of each key."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradcheck_cli.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "tool.gradcheck"


@dataclass(frozen=True)
class ConfigFile:
    """What a file sets: values by key, and the line of each key that one was found for, a.b for a key b below a."""

    path: Path
    values: Mapping[Any, Any]
    lines: Mapping[str, int]

    def where(self, *keys: Any) -> str:
        """gradcheck.yaml:3, with the line of the innermost key that has one, or the file alone."""
        names = [".".join(map(str, keys[:depth])) for depth in range(len(keys), 0, -1)]
        return next((f"{self.path}:{self.lines[name]}" for name in names if name in self.lines), str(self.path))


class Loader(yaml.SafeLoader):
    """YAML 1.1 as it is usual in Python, but 1e-3 is a number, as in YAML 1.2, and no text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def find_configs(config: Path | None) -> list[ConfigFile]:
    """The file named, or else those of the working directory; what comes first counts less.

    Raises ConfigError for a file that cannot be read.
    """
    if config is not None:
        return [read_toml(config, required=True) if config.suffix == ".toml" else read_yaml(config)]
    defaults = ((Path("pyproject.toml"), read_toml), (Path("gradcheck.yaml"), read_yaml))
    return [read(path) for path, read in defaults if path.is_file()]


def parse_yaml(source: str) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, or ValueError for a date that does not exist."""
    return yaml.load(source, Loader)


def read_yaml(path: Path) -> ConfigFile:
    """What a YAML file sets."""
    source = read_source(path)
    try:
        values = parse_yaml(source)
        root = yaml.compose(source, Loader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}", "mend the YAML") from error
    if values is None:
        return ConfigFile(path, {}, {})
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}", "write `steps: 100`, say")
    return ConfigFile(path, values, dict(lines_below(root)))


def lines_below(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every key of a YAML mapping and of those in it, with its line."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        yield from lines_below(value, f"{name}.")


def read_toml(path: Path, required: bool = False) -> ConfigFile:
    """What [tool.gradcheck] sets in a TOML file; nothing where there is no such table, unless it is required."""
    source = read_source(path)
    try:
        values: Any = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", "mend the TOML") from error
    for name in TABLE.split("."):
        values = values.get(name, None if required else {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path} has no table [{TABLE}]", f"begin it with a line [{TABLE}]")
    return ConfigFile(path, values, lines_in_table(source))


def lines_in_table(source: str) -> dict[str, int]:
    """The lines of the keys of [tool.gradcheck], and of the tables in it."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(source.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]*?)\s*\]", line):
            table = header[1].replace('"', "").replace("'", "")
            if table.startswith(f"{TABLE}."):
                lines.setdefault(table.removeprefix(f"{TABLE}."), number)
        elif f"{table}.".startswith(f"{TABLE}.") and (key := re.match(r"""\s*["']?([\w-]+)["']?\s*[=.]""", line)):
            lines.setdefault(f"{table}.{key[1]}".removeprefix(f"{TABLE}."), number)
    return lines


def read_source(path: Path) -> str:
    """The text of a configuration file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "--config takes a YAML or TOML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: it is no UTF-8 text", "--config takes a YAML or TOML file") from error
