"""gradcheck rules"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gradcheck_cli.cli.streams import emit
from gradcheck_cli.errors import ConfigError

if TYPE_CHECKING:
    from gradcheck_cli.report.view import View

CATALOGUE = "nan"
Code = Annotated[
    str | None,
    typer.Argument(
        help="A code or name: GC101, vanishing-gradient; nan for the causes of nan-trace, or one: sqrt-at-zero.",
        show_default=False,
    ),
]


def rules(code: Code = None) -> None:
    """List all rules or all causes of non-finite values, or print the documentation of one."""
    from gradcheck_cli.report.view import View

    emit(sys.stdout, look_up(code or "", View.of(sys.stdout)))


def look_up(code: str, view: View) -> str:
    """The list of rules for "", that of causes for CATALOGUE, else one's documentation. Raises ConfigError."""
    from gradcheck_cli.diagnose.diagnosis import ALL_RULES
    from gradcheck_cli.report.rules import render_causes, render_documentation, render_rules

    if not code:
        return render_rules([rule.info for rule in ALL_RULES], view)
    for rule in ALL_RULES:
        if code.lower() in (rule.code.lower(), rule.name):
            return render_documentation(rule.documentation, view)
    from gradcheck_cli.diagnose.nan.causes import CAUSES

    if code.lower() == CATALOGUE:
        return render_causes([(cause.id, cause.phases, cause.title) for cause in CAUSES], view)
    for cause in CAUSES:
        if code.lower() == cause.id:
            return render_documentation(cause.documentation, view)
    message = f"there is no rule {code}, and no cause of that name"
    raise ConfigError(message, "gradcheck rules lists the rules, gradcheck rules nan the causes")
