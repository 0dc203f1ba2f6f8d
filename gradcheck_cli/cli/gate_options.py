"""The options of a gate: a baseline to hold a run against, one to write, findings that are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gradcheck_cli.cli.messages import notify
from gradcheck_cli.cli.options import JUDGE, OUTPUT
from gradcheck_cli.report.output import check, write

if TYPE_CHECKING:
    from gradcheck_cli.config import Settings
    from gradcheck_cli.judgement_baseline import Gate
    from gradcheck_cli.records import Report

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


def prepare_gate(command: str, settings: Settings) -> Gate:
    """Read the baselines, and see that the one to write can be written: before the run, not after it.

    Raises BaselineError, ConfigError or OutputError.
    """
    from gradcheck_cli.judgement_baseline import open_gate

    gate = open_gate(command, settings)
    if gate.path:
        check(gate.path)
    return gate


def keep(gate: Gate, report: Report, settings: Settings) -> None:
    """Write the baseline, if there is one to write, and say so.

    Nothing is written of a run that did not come to its end. Raises ConfigError for an `accept` that fits no finding.
    """
    if gate.path is None:
        return
    if report.error or report.run.ended in ("failed", "interrupted"):
        notify("no baseline was written: the run did not come to its end")
        return
    write(gate.path, gate.renew(report))
    if not settings.quiet:
        notify(f"wrote {gate.path}")
