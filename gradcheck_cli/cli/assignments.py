"""What --set gives."""

from __future__ import annotations

from typing import Any

from gradcheck_cli.errors import ConfigError


def read_assignments(assignments: list[str] | None) -> dict[str, Any]:
    """`name=value` texts as names and YAML values. Raises ConfigError for one without a name or with broken YAML."""
    if not assignments:
        return {}
    import yaml

    from gradcheck_cli.config_files import parse_yaml

    values = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {assignment} is not NAME=VALUE", "write --set hidden=256, say")
        try:
            values[name] = parse_yaml(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {assignment}: the value is no YAML", "quote it: --set name='[1, 2]'") from error
    return values
