"""The option that names loggers."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcheck_cli.cli.options import OUTPUT

Log = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LOGGER",
        help="Write every step at once: tensorboard:DIR, wandb[:PROJECT] or jsonl:PATH.",
        rich_help_panel=OUTPUT,
    ),
]
