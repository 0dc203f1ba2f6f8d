"""gradcheck rules"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gradcheck_cli.cli.streams import emit
from gradcheck_cli.errors import ConfigError

Code = Annotated[str | None, typer.Argument(help="A code or name: GC101, vanishing-gradient.", show_default=False)]


def rules(code: Code = None) -> None:
    """List all rules, or print the documentation of one."""
    from gradcheck_cli.diagnose.rules import RULES
    from gradcheck_cli.report.rules import render_documentation, render_rules
    from gradcheck_cli.report.view import View

    view = View.of(sys.stdout)
    known = [rule.info for rule in RULES]
    if code is None:
        emit(sys.stdout, render_rules(known, view))
        return
    wanted = [info for info in known if code.lower() in (info.code.lower(), info.name)]
    if not wanted:
        raise ConfigError(f"there is no rule {code}", "gradcheck rules lists them")
    emit(sys.stdout, render_documentation(wanted[0], view))
