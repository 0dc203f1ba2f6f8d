"""gradcheck init"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gradcheck_cli.scaffold.project import Project

Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.", show_default=False)]


def init(force: Force = False) -> None:
    """Write a configuration and an entrypoint that run as they are, from what is found in this folder."""
    from gradcheck_cli.cli.messages import notify
    from gradcheck_cli.errors import OutputError
    from gradcheck_cli.report.output import check, write
    from gradcheck_cli.scaffold.files import CONFIG, ENTRYPOINT, write_config, write_entrypoint
    from gradcheck_cli.scaffold.project import look

    project = choose_scripts(look(Path.cwd()))
    contents = {CONFIG: write_config(project), ENTRYPOINT: write_entrypoint(project.models)}
    there = [str(path) for path in contents if path.exists()]
    if there and not (force or may_replace(there)):
        raise OutputError(
            f"{' and '.join(there)} would be replaced", "gradcheck init --force replaces, or move it away"
        )
    for path in contents:
        check(path)
    for path, content in contents.items():
        write(path, content)
        notify(f"wrote {path}")
    notify("next: gradcheck profile --all")


def is_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def may_replace(paths: list[str]) -> bool:
    """Ask, if somebody is there."""
    return is_terminal() and typer.confirm(f"replace {' and '.join(paths)}?", err=True)


def choose_scripts(project: Project) -> Project:
    """All training scripts; on a terminal, those that are wanted of several."""
    from dataclasses import replace

    if len(project.scripts) < 2 or not is_terminal():
        return project
    wanted = [script for script in project.scripts if typer.confirm(f"profile {script.path}?", default=True, err=True)]
    return replace(project, scripts=tuple(wanted))
