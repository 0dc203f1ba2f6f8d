"""Hold a run against its baseline, and write a new one."""

from __future__ import annotations

from gradcheck_cli.cli.messages import notify
from gradcheck_cli.config import Settings
from gradcheck_cli.judgement_baseline import Gate, open_gate
from gradcheck_cli.records import Report
from gradcheck_cli.report.output import check, write


def prepare_gate(command: str, settings: Settings) -> Gate:
    """Read the baselines, and see that the one to write can be written: before the run, not after it.

    Raises BaselineError, ConfigError or OutputError.
    """
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
