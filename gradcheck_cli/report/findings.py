"""What the rules found, and what they could not judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from rich.text import Text

from gradcheck_cli.blocks import Block, make_blocks
from gradcheck_cli.records import Finding, NotEvaluated
from gradcheck_cli.report.lines import SYMBOLS, join, styled, wrap
from gradcheck_cli.report.view import View


def finding_list(findings: Sequence[Finding], view: View) -> list[Text]:
    """A block for each root cause with what it explains, the most severe first; like neighbours share one."""
    lines: list[Text] = []
    for _, alike in groupby(enumerate(make_blocks(findings)), key=lambda pair: likeness(*pair)):
        blocks = [block for _, block in alike]
        lines += [*root_list([root for block in blocks for root in block.roots], view)]
        lines += [*explained_list(blocks[0], view), Text("")]
    return lines[:-1]


def likeness(index: int, block: Block) -> tuple[Any, ...]:
    """The same for findings that stand alone and share severity, rule and hint; else the block's own."""
    return fix_of(block.roots[0]) if len(block.findings) == 1 else (index,)


def fix_of(finding: Finding) -> tuple[Any, ...]:
    """What findings have in common for which one fix is said once."""
    return finding.severity, finding.code, finding.hint


def root_list(roots: Sequence[Finding], view: View) -> list[Text]:
    """Root causes in full; neighbours that share a rule and a hint say the hint once, after the last of them."""
    lines: list[Text] = []
    for _, alike in groupby(roots, key=fix_of):
        for finding in alike:
            lines += [*title(finding, view), *wrap(styled(view.prose(finding.message)), view.width, "  ")]
            lines += place(finding, view)
        if finding.hint:
            first = view.prose("  → fix: ")
            lines += wrap(styled(view.prose(finding.hint)), view.width, " " * len(first), first)
    return lines


def explained_list(block: Block, view: View) -> list[Text]:
    """What follows from the roots, in short: like findings together, without a place or a fix."""
    narrower = replace(view, width=view.width - 2)
    lines = [styled("explains", "quiet")] if block.explained else []
    for _, alike in groupby(block.explained, key=lambda finding: (finding.severity, finding.code)):
        lines += show_explained(list(alike), len(block.roots) > 1, narrower)
    return [Text("  ") + line for line in lines]


def show_explained(alike: Sequence[Finding], several: bool, view: View) -> list[Text]:
    """The layers of all, the message of the first; of which cause, if there are several."""
    first, causes = alike[0], [cause for finding in alike for cause in finding.because]
    layers = [finding.layer or "(model)" for finding in alike if finding.layer is not None]
    message = styled(view.prose(first.message))
    if len(alike) > 1:
        message = join([message, styled(view.prose(f"(and {len(alike) - 1} like it)"), "quiet")], " ")
    if several:
        codes = ", ".join(dict.fromkeys(cause.partition(":")[0] for cause in causes))
        message = join([message, styled(f"(because {codes})", "quiet")], " ")
    whole = replace(first, layer=", ".join(layers) if layers else None)
    return title(whole, view) + wrap(message, view.width, "  ")


def title(finding: Finding, view: View) -> list[Text]:
    """Severity, code, name and layer; a layer that has no room goes on to the next line."""
    severity = finding.severity.value
    sign = styled(view.prose(f"{SYMBOLS[severity]} {severity}"), severity)
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
