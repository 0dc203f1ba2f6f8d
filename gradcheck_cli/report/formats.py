"""Every format that a report can have. A new one is a file here and a line in FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradcheck_cli import archive
from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Report
from gradcheck_cli.report.json_document import render_json
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View


@dataclass(frozen=True)
class Format:
    """`render` gives str, or bytes where the format is no text; `suffixes` with their dots, in lower case."""

    name: str
    suffixes: tuple[str, ...]
    render: Callable[[Report, View], str | bytes]
    is_text: bool = True


def render_archive(report: Report, view: View) -> bytes:
    """The recording as `.npz`. Raises OutputError where the report has none."""
    if report.recording is None:
        raise OutputError("this report has no recording to save", "choose another format")
    return archive.dumps(report.recording)


FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        Format("table", (".txt",), render_table),
        Format("json", (".json",), render_json),
        Format("npz", (".npz",), render_archive, is_text=False),
    )
}


def render(report: Report, name: str, view: View | None = None) -> str | bytes:
    """The report in one of FORMATS. Raises OutputError for an unknown name."""
    if name not in FORMATS:
        raise OutputError(f"no such format: {name}", f"choose one of {', '.join(FORMATS)}")
    return FORMATS[name].render(report, view or View())


def format_of(path: Path) -> str:
    """The name of the format that a path's suffix asks for. Raises OutputError for an unknown suffix."""
    suffixes = {suffix: entry.name for entry in FORMATS.values() for suffix in entry.suffixes}
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"cannot tell the format of {path} from its suffix", f"use one of {', '.join(suffixes)}")
    return suffixes[path.suffix.lower()]
