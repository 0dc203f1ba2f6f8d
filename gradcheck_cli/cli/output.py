"""Write a report to stdout and to the files asked for."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from gradcheck_cli.cli.messages import notify
from gradcheck_cli.cli.streams import emit
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Report
from gradcheck_cli.report.formats import FORMATS, format_of, render
from gradcheck_cli.report.output import check, check_directory, write
from gradcheck_cli.report.view import View


def check_outputs(settings: Settings) -> list[Path]:
    """The absolute paths to write to: the user's code may change the working directory.

    Raises OutputError for a format or path that cannot be written, before the run rather than after it.
    """
    known = [entry.name for entry in FORMATS.values() if entry.is_text]
    if settings.format not in known:
        raise OutputError(f"no such format for stdout: {settings.format}", f"choose one of {', '.join(known)}")
    for path in settings.output:
        format_of(Path(path))
        check(Path(path))
    return [Path(path).absolute() for path in settings.output]


def check_text_outputs(settings: Settings) -> list[Path]:
    """As `check_outputs`, for a command that makes no recording: refuses `.npz`, too."""
    for path in settings.output:
        if not FORMATS[format_of(Path(path))].is_text:
            raise OutputError(
                f"cannot write {path}: nan-trace keeps no recording", "use .json or .txt; profile --save keeps one"
            )
    return check_outputs(settings)


def check_folder(folder: Path | None) -> Path | None:
    """The absolute path of a folder to write to. Raises OutputError for one that cannot be written."""
    if folder is None:
        return None
    check_directory(folder)
    return folder.absolute()


def publish(report: Report, settings: Settings, outputs: list[Path], stdout: TextIO, view: View) -> None:
    """Write every file and print the report. Raises OutputError for the first that failed, after all the others."""
    with ExitStack() as stack:  # run in reverse, each even if one before it failed
        for path in reversed(outputs):
            stack.callback(save, report, settings, path, replace(view, width=100, color=False, unicode=True))
        emit(stdout, str(render(report, settings.format, view)))


def save(report: Report, settings: Settings, path: Path, view: View) -> None:
    """Write one file and say so."""
    write(path, render(report, format_of(path), view))
    if not settings.quiet:
        notify(f"wrote {path}")
