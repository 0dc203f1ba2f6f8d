"""Findings in Markdown: a heading for each root cause, its message and its fix, then what it explains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from gradcheck_cli.blocks import Block
from gradcheck_cli.records import Finding, Report
from gradcheck_cli.report.comparison import states_of
from gradcheck_cli.report.findings import States, describe_explained, fix_of, gather_alike, gather_explained
from gradcheck_cli.report.lines import SYMBOLS
from gradcheck_cli.report.markup import code, prose, sign
from gradcheck_cli.report.parts import Part
from gradcheck_cli.report.view import View

SHOWN = 20


def finding_parts(report: Report, view: View) -> Iterator[Part]:
    """One part, an item for each block as in the table; none where there are no findings."""
    states = states_of(report)
    items = [describe_blocks(blocks, view, states) for blocks in gather_alike(report.diagnosis.findings, states)]
    if items:
        yield Part("", tuple(items), "`gradcheck rules CODE` explains a rule.\n\n", "finding")


def describe_blocks(blocks: Sequence[Block], view: View, states: States) -> str:
    """Root causes with a fix for those that share one, and what they explain."""
    roots = [root for block in blocks for root in block.roots]
    texts = [describe_roots(list(alike), view, states) for _, alike in groupby(roots, key=fix_of)]
    return "".join([*texts, explained_list(blocks[0], view, states)])


def describe_roots(alike: Sequence[Finding], view: View, states: States) -> str:
    """One in full; several of a kind as a list."""
    first = alike[0]
    fix = f"**Fix:** {prose(first.hint, view)}\n\n" if first.hint else ""
    if len(alike) == 1:
        where = place(first, view)
        text = prose(first.message, view) + (f" ({where})" if where else "")
        return f"### {title(first, view, states)}{layers(alike, view)}\n\n{text}\n\n{fix}"
    lines = [entry(finding, view) for finding in alike[:SHOWN]]
    return f"### {title(first, view, states)}, {len(alike):,} times\n\n{''.join(lines)}{rest(alike)}\n{fix}"


def title(finding: Finding, view: View, states: States) -> str:
    """Sign, state, severity, code and name."""
    severity, state = finding.severity.value, states.get(finding.fingerprint, "")
    words = " ".join(filter(None, (sign(SYMBOLS[severity]), state, severity)))
    return f"{words}: {prose(f'{finding.code} {finding.name}', view)}"


def layers(findings: Sequence[Finding], view: View) -> str:
    """` in` and the layers, if they have any."""
    named = [code(one.layer or "(model)", view) for one in findings[:SHOWN] if one.layer is not None]
    more = f" and {len(findings) - SHOWN:,} more" if len(findings) > SHOWN else ""
    return f" in {', '.join(named)}{more}" if named else ""


def place(finding: Finding, view: View) -> str:
    """When and where: the step and the line of source, if known."""
    step = "" if finding.step is None else f"step {finding.step}"
    source = code(f"{finding.location.file}:{finding.location.line}", view) if finding.location else ""
    return ", ".join(filter(None, (step, source)))


def entry(finding: Finding, view: View) -> str:
    """One of several of a kind, on a line."""
    lead = "" if finding.layer is None else f"{code(finding.layer or '(model)', view)}: "
    where = place(finding, view)
    return f"- {lead}{prose(finding.message, view)}" + (f" ({where})\n" if where else "\n")


def rest(alike: Sequence[Finding]) -> str:
    """How many more there are."""
    return f"- and {len(alike) - SHOWN:,} more like it\n" if len(alike) > SHOWN else ""


def explained_list(block: Block, view: View, states: States) -> str:
    """What follows from the roots, in short."""
    lines = []
    for alike in gather_explained(block, states):
        head = f"{title(alike[0], view, states)}{layers(alike, view)}"
        message = f"{describe_explained(alike, len(block.roots) > 1)}"
        lines.append(f"- {head}: {prose(message, view)}\n")
    return f"This explains:\n\n{''.join(lines)}\n" if lines else ""


def not_evaluated_parts(report: Report, view: View) -> Iterator[Part]:
    """The rules that could not judge, folded, with their reasons."""
    skipped = report.diagnosis.not_evaluated
    items = [f"- {prose(f'{one.code} {one.name}: {one.reason}', view)}\n" for one in skipped]
    if items:
        head = f"<details><summary>{len({one.code for one in skipped})} not evaluated</summary>\n\n"
        yield Part(head, tuple(items), "\n</details>\n\n", "reason")
