"""Write a report to stdout and to the files asked for."""

from __future__ import annotations

import os
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
from gradcheck_cli.report.markdown import LIMIT, render_within
from gradcheck_cli.report.output import append, check, check_directory, size_of, write
from gradcheck_cli.report.view import View

LEAST_SUMMARY = 4096


def check_outputs(settings: Settings) -> list[Path]:
    """The absolute paths to write to: the user's code may change the working directory.

    Raises OutputError for a format or path that cannot be written, before the run rather than after it.
    """
    known = [entry.name for entry in FORMATS.values() if entry.is_text]
    if settings.format not in known:
        raise OutputError(f"no such format for stdout: {settings.format}", f"choose one of {', '.join(known)}")
    if require := FORMATS[settings.format].require:
        require()
    for path in settings.output:
        format_of(Path(path))
        check(Path(path))
    return [Path(path).absolute() for path in settings.output]


def check_text_outputs(settings: Settings) -> list[Path]:
    """As `check_outputs`, for a command that makes no recording: refuses `.npz`, too."""
    for path in settings.output:
        if not FORMATS[format_of(Path(path))].is_text:
            raise OutputError(
                f"cannot write {path}: nan-trace keeps no recording", "choose a text format; profile --save keeps one"
            )
    return check_outputs(settings)


def check_folder(folder: Path | None) -> Path | None:
    """The absolute path of a folder to write to. Raises OutputError for one that cannot be written."""
    if folder is None:
        return None
    check_directory(folder)
    return folder.absolute()


def publish(report: Report, settings: Settings, outputs: list[Path], stdout: TextIO, view: View) -> None:
    """Write every file, print the report, and in GitHub Actions add it to the step's summary.

    Raises OutputError for the first that failed, after all the others; a summary that fails is a notice.
    """
    with ExitStack() as stack:  # run in reverse, each even if one before it failed
        stack.callback(summarise, report, settings, view)
        for path in reversed(outputs):
            stack.callback(save, report, settings, path, replace(view, width=100, color=False, unicode=True))
        emit(stdout, str(render(report, settings.format, view)))


def save(report: Report, settings: Settings, path: Path, view: View) -> None:
    """Write one file and say so."""
    write(path, render(report, format_of(path), view))
    if not settings.quiet:
        notify(f"wrote {path}")


def summarise(report: Report, settings: Settings, view: View) -> None:
    """Add the report to what GITHUB_STEP_SUMMARY names, as far as GitHub's limit for a step has room for it."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path or not settings.step_summary:
        return
    room = LIMIT - size_of(Path(path)) - 1
    try:
        if room < LEAST_SUMMARY:
            raise OutputError("it is full, and GitHub takes 1 MiB a step")
        append(Path(path), render_within(report, replace(view, unicode=True), room))
    except OutputError as error:
        if not settings.quiet:
            notify(f"not in the step's summary: {error.message}")
