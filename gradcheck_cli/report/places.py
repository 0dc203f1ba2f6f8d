"""Where in the source a finding belongs, for those who read it beside the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from gradcheck_cli.records import Finding, Location, Report
from gradcheck_cli.report.view import View


def place_of(finding: Finding, report: Report) -> Location | None:
    """The finding's own line; else that of its layer's class, or of the nearest parent's; else the entrypoint's.

    Lines within the working directory are preferred: a library's is not in the repository that is looked at.
    """
    known = list(places(finding, report))
    return next((place for place in known if not PurePath(place.file).is_absolute()), known[0] if known else None)


def places(finding: Finding, report: Report) -> Iterator[Location]:
    """All that are known, the best first."""
    own, entrypoint = finding.location, entrypoint_of(report)
    if own and (finding.layer is None or own != entrypoint):  # which is given where nothing better was known
        yield own
    yield from classes_around(finding.layer, report)
    if entrypoint:
        yield entrypoint


def classes_around(layer: str | None, report: Report) -> Iterator[Location]:
    """Where the user-defined classes around a layer stand, the innermost first; `*` in its name is any number."""
    if layer is None or report.recording is None:
        return
    sources = {module.name: module.source for module in report.recording.modules if module.source}
    parts = layer.split(".") if layer else []
    for length in range(len(parts), -1, -1):
        pattern = re.escape(".".join(parts[:length])).replace(r"\*", "[0-9]+")
        yield from (source for name, source in sources.items() if re.fullmatch(pattern, name))


def path_in_repository(file: str, view: View) -> str:
    """A file as services name it: from the repository's root, with slashes; absolute where it is outside."""
    return (PurePath(view.folder) / PurePath(file)).as_posix()


def entrypoint_of(report: Report) -> Location | None:
    """Where the target stands, its first line where that is all that is known; None for what is no file's name."""
    if report.run.location:
        return report.run.location
    file = re.match(r"[^:]+?\.(?:py|csv|json)(?=[:\s]|$)", report.run.target)
    return Location(file[0], 1) if file else None
