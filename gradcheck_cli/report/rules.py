"""The list of rules, and one rule's documentation."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.table import Table

from gradcheck_cli.records import RuleInfo
from gradcheck_cli.report.view import View


def render_rules(rules: Sequence[RuleInfo], view: View) -> str:
    """All rules with code, name, usual severity and what they detect."""
    table = Table(box=None, pad_edge=False)
    for heading in ("code", "name", "severity"):
        table.add_column(heading, no_wrap=True)
    table.add_column("detects")
    for rule in rules:
        table.add_row(rule.code, rule.name, rule.severity.value, rule.summary)
    return print_to_text(table, view) + "\ngradcheck rules CODE explains one\n"


def render_documentation(rule: RuleInfo, view: View) -> str:
    """One rule's documentation: formatted on a terminal, Markdown as it is elsewhere."""
    if not view.color:
        return rule.documentation
    return print_to_text(Markdown(rule.documentation), view)


def print_to_text(renderable: RenderableType, view: View) -> str:
    """What Rich makes of it in the view's width."""
    stream = io.StringIO()
    Console(file=stream, width=view.width, force_terminal=view.color, no_color=not view.color).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
