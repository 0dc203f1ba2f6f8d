"""The options of a gate: a baseline to hold a run against, one to write, findings that are accepted."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcheck_cli.cli.options import JUDGE, OUTPUT

Baseline = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Fail only on what is worse than in this baseline.",
        rich_help_panel=JUDGE,
        show_default=False,
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CODE[:LAYER]=REASON",
        help="Note in the baseline that a finding is accepted, and why.",
        rich_help_panel=JUDGE,
        show_default=False,
    ),
]
WriteBaseline = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Keep what was found and measured, for --baseline.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
