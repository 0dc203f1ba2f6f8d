"""Start the ranks of a run on this machine, and bring back what rank 0 reports or why they failed."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import Place, find_place, joined
from gradcheck_cli.drive.ranks.interrupts import (
    CAN_HOLD,
    HANDLED,
    handlers_restored,
    interrupts_held,
    release_interrupts,
)
from gradcheck_cli.drive.ranks.outcomes import PATIENCE, Death, Outcome, Result, judge, load, save
from gradcheck_cli.errors import GradcheckError

Work = Callable[..., Result]
INTERRUPTED = "interrupted before there was anything to report"


def launch(work: Work, arguments: Sequence[Any], settings: Settings) -> Result:
    """The result of `work(group, *arguments)` on rank 0 of `settings.nproc` new processes, which all run it.

    All must survive pickling. Ctrl-C reaches every rank once, a second one ends them; none outlives this call.
    Raises GradcheckError, with the rank and host, when rank 0 has nothing to report.
    """
    death, received = None, None
    with (
        TemporaryDirectory(prefix="gradcheck-") as name,
        without_logs(),
        handlers_restored(),
        interrupts_held(),
        no_rank_left(),
    ):
        folder = Path(name)
        try:
            elastic_launch(configure(settings, folder), be_rank)(folder, work, tuple(arguments), settings)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            death = Death(rank, failure.exitcode)
        except SignalException as error:
            received = error.sigval
        outcomes = load(folder)
    if received and not any(outcome.report for outcome in outcomes):
        raise GradcheckError(INTERRUPTED if received is signal.SIGINT else f"ended by {received.name}")
    return judge(outcomes, settings.nproc, socket.gethostname(), death)


def configure(settings: Settings, folder: Path) -> LaunchConfig:
    """One machine, no restarts; ranks that are told to end get the time of one collective, where torch lets us say."""
    newer: dict[str, Any] = {}
    if "shutdown_timeout" in {entry.name for entry in fields(LaunchConfig)}:
        newer["shutdown_timeout"] = math.ceil(settings.timeout)
    if CAN_HOLD:
        newer["signals_to_handle"] = ",".join(name for name in HANDLED if name != "SIGINT")
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.nproc,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        **newer,
    )


def be_rank(folder: Path, work: Work, arguments: tuple[Any, ...], settings: Settings) -> None:
    """What each process does: join, work, and leave its outcome in the folder."""
    detach()
    share_cores(settings.nproc)
    place = find_place() or Place()
    (folder / f"{place.rank}.pid").write_text(str(os.getpid()))
    outcome = attempt(place, work, arguments, settings)
    save(outcome, folder)
    if is_over(outcome):
        wait_for_all(folder, place.size)
        wake_all(folder)
        sys.exit(2)


def is_over(outcome: Outcome) -> bool:
    """Whether the process should end by itself: after Ctrl-C the launcher waits for that, and for no result."""
    return outcome.error is not None or (outcome.report is not None and outcome.report.run.ended == "interrupted")


def attempt(place: Place, work: Work, arguments: tuple[Any, ...], settings: Settings) -> Outcome:
    """Join the others and work with them, whatever comes of it."""
    report, error = None, None
    try:
        release_interrupts()
        with joined(place, settings.device, settings.timeout) as group:
            report, error = work(group, *arguments)
    except KeyboardInterrupt:
        error = GradcheckError(INTERRUPTED)
    except GradcheckError as failure:
        error = failure
    except BaseException:
        words = "gradcheck failed: this is a bug of gradcheck's, please report it with the lines below"
        error = GradcheckError(words, details=traceback.format_exc())
    return Outcome(place.rank, place.size, socket.gethostname(), time.time(), report, error)


def detach() -> None:
    """Leave Ctrl-C to the launcher, which passes it on, and end with it, even if it is killed."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    _prctl_pr_set_pdeathsig(getattr(signal, "SIGKILL", signal.SIGTERM))


def share_cores(ranks: int) -> None:
    """Give each rank its part of the cores, unless the user said how many threads there are."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // ranks))


def wait_for_all(folder: Path, size: int) -> None:
    """Until every rank has left its outcome, but not for long: the cause may be theirs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and len(list(folder.glob("*.outcome"))) < size:
        time.sleep(0.05)


def wake_all(folder: Path) -> None:
    """Let ranks that were stopped go on: until then they cannot be ended either."""
    for path in folder.glob("*.pid") if hasattr(signal, "SIGCONT") else ():
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(path.read_text()), signal.SIGCONT)


@contextmanager
def without_logs() -> Iterator[None]:
    """Hush torch's launcher, which logs every failure with a traceback of its own."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def no_rank_left() -> Iterator[None]:
    """Kill what was started in the context and is still there, however that ends."""
    before = multiprocessing.active_children()
    try:
        yield
    finally:
        for child in set(multiprocessing.active_children()).difference(before):
            child.kill()
            child.join(PATIENCE)
