"""What a run has become since its baseline was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from gradcheck_cli.comparison import Comparison
from gradcheck_cli.records import Finding, Report
from gradcheck_cli.report.lines import styled, wrap
from gradcheck_cli.report.origin_block import block
from gradcheck_cli.report.view import View

SHOWN = 12
SPARED = ("known", "accepted", "uncertain")
BY_CHANCE = "another seed could bring it about, so it does not count"
Entry = tuple[str, list[str]]


def states_of(report: Report) -> dict[str, str]:
    """new, known, accepted or uncertain, by the findings' fingerprints; empty where there is no baseline."""
    comparison = report.comparison
    if comparison is None:
        return {}
    return {one.fingerprint: comparison.state_of(one.fingerprint) for one in report.diagnosis.findings}


def judged(report: Report) -> tuple[Finding, ...]:
    """The findings that decide whether a run fails: all, or with a baseline those that are new."""
    states = states_of(report)
    return tuple(one for one in report.diagnosis.findings if states.get(one.fingerprint, "new") == "new")


def old(report: Report) -> str:
    """`2 known, 1 accepted`, those that do not decide; empty where there are none."""
    states = list(states_of(report).values())
    return ", ".join(f"{states.count(state)} {state}" for state in SPARED if state in states)


def why_spared(finding: Finding, comparison: Comparison) -> str:
    """Why a finding does not decide, though it is there."""
    state = comparison.state_of(finding.fingerprint)
    if state == "uncertain":
        return f"not in the baseline {comparison.baseline}, but {BY_CHANCE}"
    reason = comparison.accepted.get(finding.fingerprint)
    return f"{state} in the baseline {comparison.baseline}" + (f": {reason}" if reason else "")


def comparison_list(report: Report, view: View) -> list[Text]:
    """A row for each thing that is as it was, or is not; empty where there is no baseline."""
    if report.comparison is None:
        return []
    title = styled("since the baseline ", "title") + styled(view.name(report.comparison.baseline))
    rows = ((label, [styled(view.prose(line)) for line in lines]) for label, lines in short_entries(report))
    return [*wrap(title, view.width), *block(rows, view)]


def short_entries(report: Report) -> Iterator[Entry]:
    """At most SHOWN of each, names of layers on one line."""
    for label, lines in entries(report):
        few = shorten(lines)
        yield label, [", ".join(few)] if lines and label in ("renamed", "added", "removed") else few


def entries(report: Report) -> Iterator[Entry]:
    """Label and lines; a label without lines has nothing to say."""
    comparison = report.comparison or Comparison("")
    yield "new", [name(report, one) for one in comparison.new] or ["nothing"]
    yield "known", [name(report, one) for one in comparison.known]
    yield "accepted", [f"{name(report, one)}: {reason}" for one, reason in comparison.accepted.items()]
    yield "uncertain", [f"{name(report, one)}: {BY_CHANCE}" for one in comparison.uncertain]
    yield "gone", [name(report, one) for one in comparison.gone]
    yield "better", list(comparison.better)
    yield "renamed", [f"{before} → {now}" for before, now in comparison.renamed.items()]
    yield "added", list(comparison.added)
    yield "removed", list(comparison.removed)
    yield "left out", list(comparison.not_compared)


def name(report: Report, fingerprint: str) -> str:
    """`GC103 unused-parameter aux` for `GC103:aux`; what the rule is called as far as this report knows it."""
    code, _, layer = fingerprint.partition(":")
    names = {one.code: one.name for one in report.diagnosis.findings} | {one.code: one.name for one in report.rules}
    return " ".join(filter(None, (code, names.get(code, ""), layer)))


def shorten(lines: Sequence[str]) -> list[str]:
    """The first SHOWN, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
