"""The list of rules, the list of causes of non-finite values, and the documentation of one."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

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
    more = "gradcheck rules CODE explains one, gradcheck rules nan lists the causes that nan-trace knows"
    return f"{print_to_text(table, view)}\n{more}\n"


def render_causes(causes: Iterable[tuple[str, Sequence[str], str]], view: View) -> str:
    """The catalogue of nan-trace: each cause by identifier, the phases that it occurs in, and title."""
    table = Table(box=None, pad_edge=False)
    table.add_column("cause", no_wrap=True)
    table.add_column("phases")
    table.add_column("what happens")
    for name, phases, title in causes:
        table.add_row(name, ", ".join(phases), Text(title))
    return f"{print_to_text(table, view)}\ngradcheck rules CAUSE explains one\n"


def render_documentation(documentation: str, view: View) -> str:
    """Markdown, formatted on a terminal, as it is elsewhere."""
    if not view.color:
        return documentation
    return print_to_text(Markdown(documentation), view)


def print_to_text(renderable: RenderableType, view: View) -> str:
    """What Rich makes of it in the view's width."""
    stream = io.StringIO()
    Console(file=stream, width=view.width, force_terminal=view.color, no_color=not view.color).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
