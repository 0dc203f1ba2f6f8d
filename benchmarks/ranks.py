"""Processes that train together as gloo ranks, and what they send each other."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from benchmarks.interleaved import HELD_MEMORY
from benchmarks.models import Run
from gradcheck_cli.drive.batches import Batch
from gradcheck_cli.drive.ranks.group import Group, Place, joined
from gradcheck_cli.drive.ranks.strategies import OWN, Strategy, bare
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.pipeline.team import Ahead, Team

TIMEOUT = 300.0


def on_ranks(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work(group, *arguments)` returns on rank 0 of so many new processes of one thread."""
    os.environ.update(HELD_MEMORY, TORCH_CPP_LOG_LEVEL="ERROR")
    port = free_port()
    with ProcessPoolExecutor(size, get_context("spawn")) as pool:
        calls = [pool.submit(as_rank, Place(rank, size, rank), port, work, *arguments) for rank in range(size)]
        first, *_ = [call.result() for call in calls]
        return first


def as_rank(place: Place, port: int, work: Callable[..., Any], *arguments: Any) -> Any:
    os.environ.update(RANK=str(place.rank), WORLD_SIZE=str(place.size), LOCAL_RANK=str(place.local_rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with joined(place, "cpu", TIMEOUT) as group:
        return work(group, *arguments)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def in_ddp(run: Run, **options: Any) -> Run:
    """As a script wraps it."""
    return replace(run, model=DistributedDataParallel(run.model, **options))


def in_fsdp2(run: Run) -> Run:
    """Each block by itself, where there are blocks, then the rest."""
    for block in getattr(run.model, "blocks", ()):
        fully_shard(block)
    fully_shard(run.model)
    return replace(run, optimizer=torch.optim.AdamW(run.model.parameters()))


STRATEGIES: dict[str, Callable[[Run], Run]] = {"ddp": in_ddp, "fsdp2": in_fsdp2}


class Profiled:
    """A run of these ranks under a recorder, as `pipeline.profiling` has it."""

    def __init__(self, run: Run, group: Group, probe_every: int = 10) -> None:
        model = bare(run.model)
        self._run, self._team = run, Team(group, Strategy.of(OWN, run.model))
        self.peers = self._team.peers_of(model)
        self.recorder = Recorder(model, run.optimizer, RecorderSettings(probe_every=probe_every, peers=self.peers))
        self._source = Ahead([Batch(0, 0, data)] for data in run.endless())

    def train(self) -> None:
        """One round."""
        with self.recorder:
            for _, window in zip(range(self._run.steps), self._source, strict=False):
                self.train_step(window)
                self.agree()

    def train_without_agreeing(self, steps: int) -> None:
        """Nothing but the number of steps brings them over."""
        with self.recorder:
            for _, window in zip(range(steps), self._source, strict=False):
                self.train_step(window)

    def train_step(self, window: list[Batch]) -> None:
        for batch in self.recorder.inspect(window):
            self._run.train_step(batch.data)

    def agree(self) -> None:
        """What ranks tell each other after every step."""
        self._team.agree("", self.recorder, self._source, is_last=False)


@dataclass
class Traffic:
    """What a rank has put into gradcheck's collectives, in bytes, the seconds in them, and what went into sockets.

    `sent` is NaN where the system is not Linux, and counts files, too.
    """

    calls: int = 0
    given: int = 0
    seconds: float = 0.0
    sent: float = float("nan")


class Counted:
    """A process group whose calls are counted."""

    def __init__(self, group: Any, traffic: Traffic) -> None:
        self._group, self._traffic = group, traffic

    def allreduce(self, tensors: Any, options: Any) -> Any:
        count(self._traffic, tensors[0])
        return self._group.allreduce(tensors, options)

    def allgather(self, outputs: Any, inputs: Any) -> Any:
        count(self._traffic, inputs[0])
        return self._group.allgather(outputs, inputs)


def count(traffic: Traffic, tensor: torch.Tensor) -> None:
    traffic.calls += 1
    traffic.given += tensor.nbytes


@contextmanager
def counted(group: Group) -> Iterator[Traffic]:
    """Count what gradcheck asks the ranks for in the context; nobody else may train meanwhile."""
    traffic, before, waited, all_reduce = Traffic(), sent(), group.waited, dist.all_reduce

    def counting(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        count(traffic, tensor)
        began = perf_counter()
        result = all_reduce(tensor, *arguments, **options)
        traffic.seconds += perf_counter() - began
        return result

    with patch.object(group, "control", Counted(group.control, traffic)), patch.object(dist, "all_reduce", counting):
        yield traffic
    traffic.sent = sent() - before
    traffic.seconds += group.waited - waited


def sent() -> float:
    """Bytes that this process has written to files and sockets, by Linux's own count; NaN elsewhere."""
    if sys.platform != "linux":
        return float("nan")
    found = re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())
    return float(found[1]) if found else float("nan")
