"""How each rank of a run ended, and which of them says why the run did."""

from __future__ import annotations

import os
import pickle
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.records import Report

Result = tuple[Report, GradcheckError | None]
"""A report, and the error that ended the run early, if any did."""

LOST_PEER = re.compile(
    r"^another rank |Connection (closed|reset) by peer|gloo/transport|timeout caused pair closure"
    r"|ncclRemoteError|ncclSystemError|Dist(Network|Store|Backend)Error"
)
"""What a `lost` rank says, and torch's backends: gloo in a RuntimeError, wherever a collective was called."""
PATIENCE = 2.0
"""Seconds in which all ranks should have seen that one has failed."""
SIGNAL_HINTS = {
    signal.SIGKILL: "out of memory? Then the system ends a process: fewer ranks or smaller batches need less",
    signal.SIGSEGV: "a crash in native code, not in Python: the lines above say where it was",
    signal.SIGBUS: "shared memory ran out? Data loaders' workers use it: see /dev/shm, or set num_workers=0",
}


@dataclass(frozen=True)
class Outcome:
    """What one of `size` ranks ended with, at a time in seconds: an error, or a report that rank 0 alone gives."""

    rank: int
    size: int
    host: str
    at: float
    report: Report | None = None
    error: GradcheckError | None = None


@dataclass(frozen=True)
class Death:
    """The process of a rank that ended first: its exit code, or the negative number of the signal."""

    rank: int
    code: int


def save(outcome: Outcome, folder: Path) -> None:
    """Leave it for `load`, whole or not at all."""
    written = folder / f"{outcome.rank}.part"
    written.write_bytes(pickle.dumps(outcome))
    os.replace(written, folder / f"{outcome.rank}.outcome")


def load(folder: Path) -> list[Outcome]:
    """Those that were saved, in the order of the ranks."""
    found = [pickle.loads(path.read_bytes()) for path in folder.glob("*.outcome")]
    return sorted(found, key=lambda outcome: outcome.rank)


def judge(outcomes: Sequence[Outcome], size: int, host: str, death: Death | None) -> Result:
    """Rank 0's report, with the error that explains why the run failed, if it did.

    Raises that error when there is no report.
    """
    error = find_cause(outcomes, size, host, death)
    report = next((one.report for one in outcomes if one.rank == 0), None)
    if report is None:
        raise error or GradcheckError(f"rank 0 of {size} on {host} ended without a report")
    return (replace(report, error=error.message, exit_code=2), error) if error else (report, None)


def find_cause(outcomes: Sequence[Outcome], size: int, host: str, death: Death | None) -> GradcheckError | None:
    """The first error that is no consequence of another rank's; else the death of a process; else what there is."""
    failed = sorted((one for one in outcomes if one.error), key=lambda one: one.at)
    for one in failed:
        if one.error and not is_consequence(one.error):
            return named(one.error, one.rank, size, one.host)
    if death and death.rank not in {one.rank for one in outcomes}:
        return named(describe_death(death.code), death.rank, size, host)
    return describe_silence(failed[0], outcomes, size) if failed else None


def is_consequence(error: GradcheckError) -> bool:
    """Whether a rank only failed because another one was gone or silent."""
    return bool(LOST_PEER.search(f"{error.message}\n{error.details}"))


def named(error: GradcheckError, rank: int, size: int, host: str) -> GradcheckError:
    """The same error, with the rank that it comes from unless it names one already."""
    if error.message.startswith("rank "):
        return error
    return GradcheckError(f"rank {rank} of {size} on {host}: {error.message}", error.hint, error.details)


def describe_death(code: int) -> GradcheckError:
    """What is known of a process that left no word."""
    if code >= 0:
        return GradcheckError(f"its process ended with exit code {code} and left no message", "see the lines above")
    try:
        number = signal.Signals(-code)
    except ValueError:
        return GradcheckError(f"its process was ended by signal {-code}")
    return GradcheckError(f"its process was ended by {number.name}", SIGNAL_HINTS.get(number, "someone ended it"))


def describe_silence(first: Outcome, outcomes: Sequence[Outcome], size: int) -> GradcheckError:
    """Which ranks did not answer the one that failed first, by when they should have failed, too."""
    assert first.error
    answered = {one.rank for one in outcomes if one.at < first.at + PATIENCE}
    silent = ", ".join(str(rank) for rank in range(size) if rank not in answered)
    what = f"rank {first.rank} of {size} on {first.host}: {first.error.message}"
    if silent:
        advice = "it hangs or is far behind; --timeout SECONDS waits longer"
        return GradcheckError(f"rank {silent} of {size} does not answer. {what}", advice)
    return GradcheckError(f"{what}; no rank says why", "killed for lack of memory, a process leaves no message")
