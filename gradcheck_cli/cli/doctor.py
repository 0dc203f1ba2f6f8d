"""gradcheck doctor"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from gradcheck_cli.cli import options as o


def doctor(config: o.Config = None) -> None:
    """Print what gradcheck runs on, for a bug report, and check that it measures rightly there."""
    from gradcheck_cli.cli.streams import emit
    from gradcheck_cli.errors import GradcheckError

    try:
        from gradcheck_cli.drive.ranks.launched import describe_backends
        from gradcheck_cli.pipeline.environment import describe
    except (ImportError, OSError) as error:  # OSError: a library that torch loads
        raise GradcheckError(
            f"torch cannot be used here: {error}", "pip install torch, and see its own notes"
        ) from error
    from gradcheck_cli.report.environment import render_environment

    sections = {**describe(), "configuration": configuration(config)}
    sections["torch"] = {**sections["torch"], "distributed": describe_backends()}
    emit(sys.stdout, render_environment(sections))
    raise typer.Exit(0 if all(value == "right" for value in sections["measures"].values()) else 2)


def configuration(config: Path | None) -> dict[str, str]:
    """The files that are read here, with the targets that they name, or what is wrong with them."""
    from gradcheck_cli.config import load_settings
    from gradcheck_cli.config_files import find_configs
    from gradcheck_cli.config_targets import read_targets
    from gradcheck_cli.errors import ConfigError

    try:
        load_settings({}, config)
        files = {str(file.path): ", ".join(map(str, file.values)) or "sets nothing" for file in find_configs(config)}
        targets = ", ".join(read_targets(config))
    except ConfigError as error:
        return {"error": error.message}
    return {**files, "targets": targets} if targets else files
