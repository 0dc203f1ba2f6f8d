"""Real ranks: four processes that are kept for all tests of a worker, and join a new gloo group for each call."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from typing import Any

import pytest

MOST = 4
TIMEOUT = 60.0
Call = Callable[..., Any]


def serve(pipe: Connection) -> None:
    """Do what is asked as one of the ranks, until there is nothing more."""
    import torch

    from gradcheck_cli.drive.ranks.group import ALONE, Place, joined

    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        function, rank, size, port, arguments, join = order
        place = Place(rank, size, rank)
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        try:
            with joined(place, "cpu", TIMEOUT) if join else nullcontext(ALONE) as group:
                pipe.send(("done", function(group, *arguments)))
        except BaseException:
            pipe.send(("failed", traceback.format_exc()))
        finally:
            if torch.distributed.is_initialized():  # a script's own, which it has not left
                torch.distributed.destroy_process_group()


class Pool:
    """Calls functions on some ranks at once; `pool(2, f, x)` gives `[f(group, x) of rank 0, of rank 1]`."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["gradcheck_cli.pipeline", "torch._dynamo"])
        pairs = [context.Pipe() for _ in range(MOST)]
        self._processes = [context.Process(target=serve, args=(theirs,), daemon=True) for _, theirs in pairs]
        self._pipes = [ours for ours, _ in pairs]
        for process in self._processes:
            process.start()

    def __call__(self, size: int, function: Call, *arguments: Any, join: bool = True) -> list[Any]:
        """The results by rank; a rank's failure is one of the test. Without `join` the function makes its own group."""
        port = free_port()
        for rank in range(size):
            self._pipes[rank].send((function, rank, size, port, arguments, join))
        answers = [pipe.recv() for pipe in self._pipes[:size]]
        failures = [text for word, text in answers if word == "failed"]
        assert not failures, "\n".join(failures)
        return [value for _, value in answers]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with suppress(OSError):  # its test has killed it
                pipe.send(None)
            process.join(5)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def ranks() -> Iterator[Pool]:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    pool = Pool()
    yield pool
    pool.close()
