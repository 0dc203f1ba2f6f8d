"""What the rules found, and what they could not judge."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.text import Text

from gradcheck_cli.records import Finding, NotEvaluated
from gradcheck_cli.report.lines import SYMBOLS, join, styled, wrap
from gradcheck_cli.report.view import View


def finding_list(findings: Sequence[Finding], view: View) -> list[Text]:
    """Most severe first; neighbours that share a rule and a hint say the hint once, after the last of them."""
    ordered = sorted(findings, key=lambda finding: -finding.severity.rank)
    lines: list[Text] = []
    for _, alike in groupby(ordered, key=lambda finding: (finding.severity, finding.code, finding.hint)):
        group = list(alike)
        for finding in group:
            lines += [*title(finding, view), *wrap(styled(view.prose(finding.message)), view.width, "  ")]
            lines += place(finding, view)
        if group[-1].hint:
            lines += wrap(styled(view.prose(group[-1].hint)), view.width, " " * 9, view.prose("  → fix: "))
        lines.append(Text(""))
    return lines[:-1]


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
