"""Workflow commands of GitHub Actions, which become annotations beside the code, and a last line with the verdict.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions: a step may make ten annotations of a
kind, so like findings are told together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck_cli.records import Finding, Location, Report, Severity
from gradcheck_cli.report.comparison import judged
from gradcheck_cli.report.figures import plural
from gradcheck_cli.report.outcome import outcome
from gradcheck_cli.report.places import entrypoint_of, path_in_repository, place_of
from gradcheck_cli.report.view import View

LIMIT = 10
NAMED = 5
LONGEST = 2000
COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


@dataclass(frozen=True)
class Remark:
    """A finding, and where it belongs."""

    finding: Finding
    place: Location | None


def render_github(report: Report, view: View) -> str:
    """At most LIMIT commands, the most severe first, then a line with each model's verdict.

    With a baseline only what is new is annotated.
    """
    reports = (report, *report.others)
    failures = [annotate_failure(one, view) for one in reports if one.error][:LIMIT]
    remarks = [Remark(finding, place_of(finding, one)) for one in reports for finding in judged(one)]
    remarks.sort(key=lambda remark: -remark.finding.severity.rank)
    commands = [*failures, *annotate_all(remarks, LIMIT - len(failures), view)]
    return "".join(f"{line}\n" for line in [*commands, *(last_line(one, view) for one in reports)])


def annotate_all(remarks: Sequence[Remark], room: int, view: View) -> Iterator[str]:
    """A command for each rule and place, or, where that is too many, for each rule; the last one for all the rest."""
    groups = gather(remarks, lambda remark: (remark.finding.severity, remark.finding.code, remark.place))
    if len(groups) > room:
        groups = gather(remarks, lambda remark: (remark.finding.severity, remark.finding.code))
    if len(groups) <= room:
        yield from (annotate(group, view) for group in groups)
    elif room:
        yield from (annotate(group, view) for group in groups[: room - 1])
        yield annotate_rest([remark for group in groups[room - 1 :] for remark in group], view)


def gather(remarks: Iterable[Remark], key: Callable[[Remark], Any]) -> list[list[Remark]]:
    """Remarks with the same key together, in the order of the first of each."""
    groups: dict[Any, list[Remark]] = {}
    for remark in remarks:
        groups.setdefault(key(remark), []).append(remark)
    return list(groups.values())


def annotate(alike: Sequence[Remark], view: View) -> str:
    """One command for findings of one rule: the message of the first, the layers of the others, and the fix."""
    first = alike[0].finding
    lines = [with_layer(first) if len(alike) == 1 else f"{with_layer(first)} {and_more(alike[1:])}"]
    lines += [f"fix: {first.hint}"] if first.hint else []
    return command(COMMANDS[first.severity], alike[0].place, f"{first.code} {first.name}", lines, view)


def with_layer(finding: Finding) -> str:
    """The message, behind the layer where it does not name that itself."""
    layer = finding.layer or ""
    named = not layer or re.search(rf"(?<![\w.]){re.escape(layer)}(?!\w|\.\d)", finding.message)
    return finding.message if named else f"{layer}: {finding.message}"


def and_more(others: Sequence[Remark]) -> str:
    """`(and 37 like it: fc1, fc2, …)`."""
    layers = [one.finding.layer or "(model)" for one in others[:NAMED] if one.finding.layer is not None]
    named = f": {', '.join([*layers, *(['…'] if len(others) > NAMED else [])])}" if layers else ""
    return f"(and {len(others)} like it{named})"


def annotate_rest(remarks: Sequence[Remark], view: View) -> str:
    """One command for what is left."""
    first = remarks[0]
    rules = dict.fromkeys(f"{one.finding.code} {one.finding.name}" for one in remarks)
    lines = [", ".join(rules), "GitHub shows ten annotations a step: the report has them all"]
    return command(COMMANDS[first.finding.severity], first.place, plural(len(remarks), "more finding"), lines, view)


def annotate_failure(report: Report, view: View) -> str:
    """The run broke off."""
    title = f"gradcheck {report.command} failed"
    return command("error", entrypoint_of(report), title, report.error.splitlines(), view)


def command(name: str, place: Location | None, title: str, lines: Iterable[str], view: View) -> str:
    """`::error file=train.py,line=7,title=GC101::message`, on one line whatever is in it."""
    known = {"file": path_in_repository(place.file, view), "line": str(place.line)} if place else {}
    pairs = {**known, "title": title}.items()
    properties = ",".join(f"{key}={escape_property(view.prose(value))}" for key, value in pairs)
    message = "\n".join(view.prose(part) for line in lines for part in line.expandtabs(4).splitlines())
    return f"::{name} {properties}::{escape(shorten(message))}"


def shorten(message: str) -> str:
    """Cut off where it is longer than anyone reads beside code."""
    return message if len(message) <= LONGEST else f"{message[:LONGEST]}..."


def escape(text: str) -> str:
    """As the runner reads the message of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """As the runner reads a property of a command."""
    return escape(text).replace(":", "%3A").replace(",", "%2C")


def last_line(report: Report, view: View) -> str:
    """The verdict; the runner takes `##[` for a command of old wherever it stands."""
    model = f", {report.run.model}" if report.run.model else ""
    sign, sentence = outcome(report)
    line = view.prose(f"gradcheck {report.command} {report.run.target}{model}: {sign} {sentence}")
    return line.replace("##[", "# #[")
