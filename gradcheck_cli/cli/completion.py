"""What the shell offers while a command is typed."""

from __future__ import annotations


def complete_name(incomplete: str) -> list[str]:
    """The configuration's targets that begin so; none where it cannot be read. The shell itself offers files."""
    from gradcheck_cli.config_targets import read_targets
    from gradcheck_cli.errors import ConfigError

    try:
        return [name for name in read_targets(None) if name.startswith(incomplete)]
    except ConfigError:
        return []
