"""What the rules found, and what they could not judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from rich.text import Text

from gradcheck_cli.blocks import Block, make_blocks
from gradcheck_cli.records import Finding, NotEvaluated
from gradcheck_cli.report.lines import SYMBOLS, join, styled, wrap
from gradcheck_cli.report.view import View

States = Mapping[str, str]
NO_STATES: States = {}


def finding_list(findings: Sequence[Finding], view: View, states: States = NO_STATES) -> list[Text]:
    """A block for each root cause with what it explains, the most severe first; like neighbours share one.

    `states` says of fingerprints whether they are new, known or accepted, where there is a baseline.
    """
    lines: list[Text] = []
    for blocks in gather_alike(findings, states):
        lines += [*root_list([root for block in blocks for root in block.roots], view, states)]
        lines += [*explained_list(blocks[0], view, states), Text("")]
    return lines[:-1]


def gather_alike(findings: Sequence[Finding], states: States = NO_STATES) -> list[list[Block]]:
    """Blocks in their order, neighbours together that stand alone and share severity, rule, hint and state."""

    def likeness(pair: tuple[int, Block]) -> tuple[Any, ...]:
        root = pair[1].roots[0]
        return (*fix_of(root), states.get(root.fingerprint)) if len(pair[1].findings) == 1 else (pair[0],)

    groups = groupby(enumerate(make_blocks(findings)), key=likeness)
    return [[block for _, block in alike] for _, alike in groups]


def fix_of(finding: Finding) -> tuple[Any, ...]:
    """What findings have in common for which one fix is said once."""
    return finding.severity, finding.code, finding.hint


def root_list(roots: Sequence[Finding], view: View, states: States) -> list[Text]:
    """Root causes in full; neighbours that share a rule and a hint say the hint once, after the last of them."""
    lines: list[Text] = []
    for _, alike in groupby(roots, key=fix_of):
        for finding in alike:
            lines += [*title(finding, view, states), *wrap(styled(view.prose(finding.message)), view.width, "  ")]
            lines += place(finding, view)
        if finding.hint:
            first = view.prose("  → fix: ")
            lines += wrap(styled(view.prose(finding.hint)), view.width, " " * len(first), first)
    return lines


def explained_list(block: Block, view: View, states: States) -> list[Text]:
    """What follows from the roots, in short: like findings together, without a place or a fix."""
    narrower = replace(view, width=view.width - 2)
    lines = [styled("explains", "quiet")] if block.explained else []
    for alike in gather_explained(block, states):
        lines += show_explained(alike, len(block.roots) > 1, narrower, states)
    return [Text("  ") + line for line in lines]


def gather_explained(block: Block, states: States = NO_STATES) -> list[list[Finding]]:
    """What follows from the roots, like neighbours together."""

    def likeness(finding: Finding) -> tuple[Any, ...]:
        return finding.severity, finding.code, states.get(finding.fingerprint)

    return [list(alike) for _, alike in groupby(block.explained, key=likeness)]


def show_explained(alike: Sequence[Finding], several: bool, view: View, states: States) -> list[Text]:
    """The layers of all, the message of the first; of which cause, if there are several."""
    first, layers = alike[0], [finding.layer or "(model)" for finding in alike if finding.layer is not None]
    remarks = [styled(view.prose(remark), "quiet") for remark in remarks_on(alike, several)]
    message = join([styled(view.prose(first.message)), *remarks], " ")
    whole = replace(first, layer=", ".join(layers) if layers else None)
    known = {whole.fingerprint: states.get(first.fingerprint, "")}
    return title(whole, view, known) + wrap(message, view.width, "  ")


def describe_explained(alike: Sequence[Finding], several: bool) -> str:
    """The message of the first, that there are more, and which cause it has, if there are several."""
    return " ".join([alike[0].message, *remarks_on(alike, several)])


def remarks_on(alike: Sequence[Finding], several: bool) -> Iterator[str]:
    """`(and 2 like it)`, `(because GC607)`."""
    if len(alike) > 1:
        yield f"(and {len(alike) - 1} like it)"
    if several:
        causes = [cause for finding in alike for cause in finding.because]
        yield f"(because {', '.join(dict.fromkeys(cause.partition(':')[0] for cause in causes))})"


def title(finding: Finding, view: View, states: States = NO_STATES) -> list[Text]:
    """State, severity, code, name and layer; a layer that has no room goes on to the next line."""
    severity, state = finding.severity.value, states.get(finding.fingerprint, "")
    words = " ".join(filter(None, (SYMBOLS[severity], state, severity)))
    sign = styled(view.prose(words), severity if state in ("", "new") else "quiet")
    rule = join([sign, styled(view.name(f"{finding.code} {finding.name}"), "title")])
    if finding.layer is None:
        return wrap(rule, view.width, "  ", "")
    layer = styled(view.name(finding.layer) or "(model)")
    whole = join([rule, layer])
    if whole.cell_len <= view.width:
        return [whole]
    return [*wrap(rule, view.width, "  ", ""), *wrap(layer, view.width, "  ")]


def place(finding: Finding, view: View) -> list[Text]:
    """When and where: the step and the line of source, if known."""
    step = "" if finding.step is None else f"step {finding.step}"
    source = f"{finding.location.file}:{finding.location.line}" if finding.location else ""
    if not (step or source):
        return []
    return wrap(join([styled(step, "quiet"), styled(view.name(source), "quiet")]), view.width, "  ")


def not_evaluated_list(skipped: Sequence[NotEvaluated], view: View) -> list[Text]:
    """One line each: the rule and why it could not judge."""
    lines = [styled("not evaluated", "quiet")] if skipped else []
    for rule in skipped:
        what = styled(view.name(f"{rule.code} {rule.name}: "))
        lines += wrap(what + styled(view.prose(rule.reason), "quiet"), view.width, "    ", "  ")
    return lines
