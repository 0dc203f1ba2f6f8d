"""The group of ranks that a process belongs to, and what passes between them besides the user's own collectives."""

from __future__ import annotations

import io
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import wraps
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from gradcheck_cli.drive.devices import choose_device
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.records import Floats

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class RankError(GradcheckError):
    """The ranks of a run do not work together: one is gone, late, or does something else."""


@dataclass(frozen=True)
class Place:
    """Where a process stands: its rank among `size` ranks, and its number on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


@dataclass(eq=False)
class Group:
    """All ranks. `waited` counts the seconds that this one spent in the calls below; every rank must make each call.

    They go through gloo on the host, beside the user's process groups: a device is not waited for.
    """

    place: Place = Place()
    backend: str = ""
    control: Any = None
    waited: float = 0.0
    host: str = field(default_factory=socket.gethostname)

    @property
    def is_alone(self) -> bool:
        """Whether there is no other rank."""
        return self.place.size == 1

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.place.size

    @property
    def rank(self) -> int:
        """This one."""
        return self.place.rank

    def add(self, numbers: Floats) -> Floats:
        """The sum over all ranks, element by element; float64, of the same shape on every rank."""
        return self._reduce(numbers, dist.ReduceOp.SUM)

    def largest(self, numbers: Floats) -> Floats:
        """The maximum over all ranks, element by element; without NaN among them."""
        return self._reduce(numbers, dist.ReduceOp.MAX)

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on every rank; anything that can be pickled."""
        if self.is_alone:
            return [value]
        mine = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self._gather(np.array([len(mine)], np.int64))
        padded = np.zeros(max(int(size[0]) for size in sizes), np.uint8)
        padded[: len(mine)] = mine
        parts = self._gather(padded)
        return [pickle.load(io.BytesIO(part.tobytes())) for part in parts]

    def _gather(self, array: Any) -> list[Any]:
        parts = [torch.empty(array.shape, dtype=torch.from_numpy(array).dtype) for _ in range(self.size)]
        self._wait(lambda: self.control.allgather([parts], [torch.from_numpy(array)]))
        return [part.numpy() for part in parts]

    def _reduce(self, numbers: Floats, operation: Any) -> Floats:
        if self.is_alone:
            return numbers
        total = torch.from_numpy(np.array(numbers, dtype=np.float64))
        options = dist.AllreduceOptions()
        options.reduceOp = operation
        self._wait(lambda: self.control.allreduce([total], options))
        return total.numpy()

    def _wait(self, begin: Callable[[], Any]) -> None:
        began = perf_counter()
        try:
            begin().wait()
        except RuntimeError as error:
            raise lost(error) from error
        finally:
            self.waited += perf_counter() - began


ALONE = Group()


def lost(error: BaseException) -> RankError:
    """Another rank did not answer."""
    if "timed out" in str(error).lower() or "timeout" in str(error):
        return RankError(
            "another rank did not answer in time", "it hangs or is far behind; --timeout SECONDS waits longer"
        )
    return RankError("another rank is gone", "its own message says why; killed for lack of memory it leaves none")


def find_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that a launcher such as torchrun gave this process, None without one."""
    if not all(environment.get(name) for name in ENVIRONMENT):
        return None
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    return Place(rank, size, int(environment.get("LOCAL_RANK", rank % max(torch.cuda.device_count(), 1))))


@contextmanager
def joined(place: Place, device: str, timeout: float) -> Iterator[Group]:
    """Be one of the ranks for the length of the context: with torch's default group, and a group of gradcheck's own.

    `device` is that of the settings, `timeout` (seconds) how long a collective may wait for another rank. Another
    `init_process_group` of the user's changes nothing. Raises RankError when the others cannot be reached.
    """
    on_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_cuda:
        choose_device("cuda", place.local_rank)  # raises where there are more ranks than devices
        torch.cuda.set_device(place.local_rank)
    backend, limit = "nccl" if on_cuda else "gloo", timedelta(seconds=timeout)
    try:
        dist.init_process_group(backend, timeout=limit)
        control = make_control(place, timeout)
    except (RuntimeError, ValueError) as error:
        if dist.is_initialized():
            dist.destroy_process_group()
        raise RankError(f"the other ranks could not be reached: {error}", "see MASTER_ADDR and MASTER_PORT") from error
    try:
        with initialised_already(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")  # it may be needed
            yield Group(place, backend, control)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def make_control(place: Place, timeout: float) -> Any:
    """A gloo group beside torch's default one, which must be there, and which it does not touch."""
    store = dist.distributed_c10d.PrefixStore("gradcheck", dist.distributed_c10d._get_default_store())
    return dist.ProcessGroupGloo(store, place.rank, place.size, timedelta(seconds=timeout))


@contextmanager
def initialised_already() -> Iterator[None]:
    """Let user code call `init_process_group` although that was done."""
    original = dist.init_process_group

    @wraps(original)
    def init_process_group(*args: Any, **kwargs: Any) -> None:
        if not dist.is_initialized():
            original(*args, **kwargs)

    homes = (dist, dist.distributed_c10d)
    for home in homes:
        home.init_process_group = init_process_group  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for home in homes:
            home.init_process_group = original  # type: ignore[attr-defined]
