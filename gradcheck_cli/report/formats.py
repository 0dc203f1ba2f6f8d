"""Every format that a report can have. A new one is a file here and a line in FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradcheck_cli import archive
from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Report
from gradcheck_cli.report.github import render_github
from gradcheck_cli.report.html.page import render_html, require_extra
from gradcheck_cli.report.json_document import render_json
from gradcheck_cli.report.junit import render_junit
from gradcheck_cli.report.markdown import render_markdown
from gradcheck_cli.report.sarif import render_sarif
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View


@dataclass(frozen=True)
class Format:
    """`render` gives str, or bytes where the format is no text; `suffixes` with their dots, in lower case.

    `require` raises OutputError where something is missing that `render` needs.
    """

    name: str
    suffixes: tuple[str, ...]
    render: Callable[[Report, View], str | bytes]
    is_text: bool = True
    require: Callable[[], None] | None = None


def render_archive(report: Report, view: View) -> bytes:
    """The recordings of all models as `.npz`. Raises OutputError where the report has none."""
    if report.recording is None:
        raise OutputError("this report has no recording to save", "choose another format")
    return archive.dumps(report.recording, [one.recording for one in report.others if one.recording is not None])


FORMATS: Mapping[str, Format] = {
    entry.name: entry
    for entry in (
        Format("table", (".txt",), render_table),
        Format("json", (".json",), render_json),
        Format("markdown", (".md",), render_markdown),
        Format("html", (".html", ".htm"), render_html, require=require_extra),
        Format("github", (), render_github),
        Format("junit", (".xml",), render_junit),
        Format("sarif", (".sarif",), render_sarif),
        Format("npz", (".npz",), render_archive, is_text=False),
    )
}


def render(report: Report, name: str, view: View | None = None) -> str | bytes:
    """The report in one of FORMATS. Raises OutputError for an unknown name."""
    if name not in FORMATS:
        raise OutputError(f"no such format: {name}", f"choose one of {', '.join(FORMATS)}")
    return FORMATS[name].render(report, view or View())


def format_of(path: Path) -> str:
    """The name of the format that a path's suffix asks for.

    Raises OutputError for an unknown suffix, and where the format's extra is not installed.
    """
    suffixes = {suffix: entry.name for entry in FORMATS.values() for suffix in entry.suffixes}
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"cannot tell the format of {path} from its suffix", f"use one of {', '.join(suffixes)}")
    found = FORMATS[suffixes[path.suffix.lower()]]
    if found.require:
        found.require()
    return found.name
