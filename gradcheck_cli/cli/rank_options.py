"""The options of a run of many processes."""

from __future__ import annotations

from typing import Annotated

import typer

RANKS = "Many processes"

Nproc = Annotated[
    int | None,
    typer.Option(metavar="N", help="Start so many ranks on this machine. (default 1)", rich_help_panel=RANKS),
]
Strategy = Annotated[
    str | None,
    typer.Option(help="ddp, fsdp2 or none: how a plain model is synchronised. (default ddp)", rich_help_panel=RANKS),
]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="How long a rank waits for another. (default 300)", rich_help_panel=RANKS),
]
