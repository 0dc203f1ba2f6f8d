"""Run a command in this process, on ranks that are started for it, or as one of a launcher's ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from gradcheck_cli.cli.messages import progress_bar
from gradcheck_cli.config_flags import as_flag
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.targets import Script

if TYPE_CHECKING:
    from gradcheck_cli.config import Settings
    from gradcheck_cli.drive.ranks.group import Group, Place
    from gradcheck_cli.records import Report

OF_LOOPS = ("nproc", "strategy")
"""What a script decides itself."""
QUIET = ("TORCH_CPP_LOG_LEVEL", "ERROR")
"""DDP looks for unused parameters here, and warns on every rank where there are none."""


def check_ranks(target: str | Script | None, flags: Mapping[str, Any]) -> None:
    """Raise ConfigError for options on ranks that somebody else decides: a script, or the launcher."""
    given = [as_flag(name) for name in OF_LOOPS if name in flags]
    if isinstance(target, Script) and given:
        raise ConfigError(
            f"{target.place} is run as it is, so it can't be given {', '.join(given)}",
            f"start its ranks with torchrun ... -m gradcheck_cli, or name a callable: {target.place}:build",
        )
    if "nproc" in flags and find_place():
        raise ConfigError("--nproc is given, and a launcher has started the ranks already", "leave out --nproc")


def find_place() -> Place | None:
    """The place that a launcher gave this process, if there is one; torch is loaded only where that may be."""
    if "WORLD_SIZE" not in os.environ:
        return None
    os.environ.setdefault(*QUIET)  # torch reads it when it is loaded
    from gradcheck_cli.drive.ranks import group

    return group.find_place()


def run(command: str, target: str | Script, settings: Settings, **options: Any) -> tuple[Report, GradcheckError | None]:
    """The result of the function of that name in `pipeline`: in this process, or rank 0's of several.

    Below a launcher it returns on rank 0 alone: the others exit. Raises GradcheckError where nothing can be reported.
    """
    if place := find_place():
        return run_launched(place, command, target, settings, options)
    if settings.nproc > 1 and not isinstance(target, Script):
        os.environ.setdefault(*QUIET)  # for the ranks
        from gradcheck_cli.drive.ranks.launch import launch

        return launch(run_rank, (command, target, settings, options), settings)
    return run_here(command, target, settings, options)


def run_here(
    command: str, target: str | Script, settings: Settings, options: Mapping[str, Any]
) -> tuple[Report, GradcheckError | None]:
    """The result, with a progress bar."""
    from gradcheck_cli import pipeline

    with progress_bar(settings.quiet) as watch:
        result: tuple[Report, GradcheckError | None] = getattr(pipeline, command)(target, settings, watch, **options)
    return result


def run_rank(
    group: Group, command: str, target: str | Script, settings: Settings, options: Mapping[str, Any]
) -> tuple[Report, GradcheckError | None]:
    """The result on one rank."""
    return run_here(command, target, choose_own(settings, group.place), {**options, "group": group})


def run_launched(
    place: Place, command: str, target: str | Script, settings: Settings, options: Mapping[str, Any]
) -> tuple[Report, GradcheckError | None]:
    """The result on rank 0; the other ranks exit here, in silence unless they are the first to fail."""
    from gradcheck_cli.drive.ranks.group import joined
    from gradcheck_cli.drive.ranks.launched import leave

    if isinstance(target, Script):  # makes its own group, so this process cannot join one before
        report, error = run_here(command, target, choose_own(settings, place), options)
    else:
        with joined(place, settings.device, settings.timeout) as group:
            report, error = run_rank(group, command, target, settings, options)
    if place.rank and error:
        raise error
    if place.rank:
        leave(place)
        raise typer.Exit
    return report, error


def choose_own(settings: Settings, place: Place) -> Settings:
    """What a rank other than 0 does without: loggers and notices."""
    return replace(settings, log=(), quiet=True) if place.rank else settings


def finish(report: Report) -> NoReturn:
    """Exit with the report's code; a launcher hears that findings are no crash."""
    if place := find_place():
        from gradcheck_cli.drive.ranks.launched import leave

        leave(place, describe_findings(report) if report.exit_code == 1 else "")
    raise typer.Exit(report.exit_code)


def describe_findings(report: Report) -> str:
    """What torchrun's banner should say in place of a traceback."""
    from gradcheck_cli.report.verdict import describe_faults

    found = describe_faults(report) or "something"
    return f"gradcheck found {found} (exit code 1): not a crash, see the report above"


@contextmanager
def speaking(error: GradcheckError) -> Iterator[GradcheckError | None]:
    """The error to show, with its rank below a launcher, where only the first rank to fail shows one."""
    if not (place := find_place()):
        yield error
        return
    from gradcheck_cli.drive.ranks import launched

    with launched.speaking(place, error) as mine:
        yield mine
