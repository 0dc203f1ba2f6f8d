"""Write a report to stdout and to the files asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from gradcheck_cli.cli.messages import notify
from gradcheck_cli.cli.streams import emit
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Report
from gradcheck_cli.report.formats import FORMATS, format_of, render
from gradcheck_cli.report.output import check, write
from gradcheck_cli.report.view import View


def check_outputs(settings: Settings) -> None:
    """Raise OutputError for a format or path that cannot be written, before the run rather than after it."""
    known = [entry.name for entry in FORMATS.values() if entry.is_text]
    if settings.format not in known:
        raise OutputError(f"no such format for stdout: {settings.format}", f"choose one of {', '.join(known)}")
    for path in settings.output:
        format_of(Path(path))
        check(Path(path))


def publish(report: Report, settings: Settings, stdout: TextIO, all_layers: bool, depth: int | None) -> None:
    """Write every file, then print the report; a path that fails in the end is an error after the rest is written."""
    view = View.of(stdout, all_layers=all_layers, depth=depth)
    emit(stdout, str(render(report, settings.format, view)))
    for path in settings.output:
        write(Path(path), render(report, format_of(Path(path)), View(100, False, True, all_layers, depth)))
        if not settings.quiet:
            notify(f"wrote {path}")
