"""A rank below a launcher such as torchrun: which one speaks, in what order they leave, what the launcher is told.

The launcher ends all ranks as soon as one fails, and shows what that one wrote to its error file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import torch.distributed as dist

from gradcheck_cli.drive.ranks.group import Place
from gradcheck_cli.drive.ranks.outcomes import PATIENCE, is_consequence, named
from gradcheck_cli.errors import GradcheckError


@cache
def connect() -> Any:
    """The launcher's store, which ranks reach that have not joined, too; None where it has none of its own."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, limit = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timedelta(seconds=PATIENCE)
    try:
        store = dist.TCPStore(*address, is_master=False, timeout=limit)  # type: ignore[attr-defined]
    except RuntimeError:
        return None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"gradcheck/{attempt}", store)  # type: ignore[attr-defined]


@contextmanager
def speaking(place: Place, error: GradcheckError) -> Iterator[GradcheckError | None]:
    """The error with its rank, to be shown in the context, or None: another rank shows one already.

    One that is a mere consequence of another rank's waits for that. On exit it is safe to end with a failure.
    """
    mine = named(error, place.rank, place.size, socket.gethostname())
    if is_consequence(error):
        time.sleep(PATIENCE)
    tell_launcher(mine.message)
    is_first = add("failed") in (0, 1)
    if not is_first:
        wait_until("shown", 1)
    yield mine if is_first else None
    if is_first:
        add("shown")
    if place.rank == 0:
        add("reported")
    else:
        wait_until("reported", 1)


def leave(place: Place, words: str = "") -> None:
    """Go without an error; rank 0 does so last. `words` is what the launcher should say when the exit code is not 0."""
    if place.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ended while it is about to end well, it would count as failed
        add("left")
        return
    if words:
        wait_until("left", place.size - 1)
        tell_launcher(words)
    add("reported")


def add(name: str, number: int = 1) -> int:
    """Count one more, or so many; 0 when nobody counts."""
    store = connect()
    if store is not None:
        with suppress(RuntimeError):  # the launcher is gone
            return int(store.add(name, number))
    return 0


def wait_until(name: str, number: int) -> None:
    """Until so many have been counted, but not for long."""
    deadline = time.monotonic() + PATIENCE
    while connect() is not None and time.monotonic() < deadline and add(name, 0) < number:
        time.sleep(0.05)


def tell_launcher(words: str) -> None:
    """Leave words for torchrun's banner, in the format of torch.distributed.elastic.multiprocessing.errors."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        known = {"py_callstack": words, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": words, "extraInfo": known}}, file)


def describe_backends() -> str:
    """What ranks can talk through with this build of torch, by name."""
    if not dist.is_available():
        return "not in this build of torch"
    known = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    return ", ".join(name for name, is_there in known.items() if is_there) or "neither gloo nor nccl"
