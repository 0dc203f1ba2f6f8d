"""The options that choose formats, and where they go to."""

from __future__ import annotations

from typing import Annotated

import typer

from gradcheck_cli.cli.options import OUTPUT

Format = Annotated[
    str | None,
    typer.Option(
        "-f",
        "--format",
        help="table, markdown, html, github, json, junit or sarif, on stdout. (default table)",
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="Also to this file: .txt, .md, .html, .json, .xml (JUnit), .sarif or .npz.",
        rich_help_panel=OUTPUT,
    ),
]
TextOutput = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="Also to this file: .txt, .md, .html, .json, .xml (JUnit) or .sarif.",
        rich_help_panel=OUTPUT,
    ),
]
StepSummary = Annotated[
    bool | None,
    typer.Option(
        "--step-summary/--no-step-summary",
        help="In GitHub Actions, add the report to the step's summary, or do not.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
