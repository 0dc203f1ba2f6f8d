"""Print what gradcheck costs on several gloo ranks; `python -m benchmarks.distributed scaling` prints one part."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from benchmarks.interleaved import Comparison, compare, compare_all
from benchmarks.models import Run, digits_cnn, gpt_10m, small_gpt, tiny_mlp
from benchmarks.ranks import STRATEGIES, Profiled, Traffic, counted, in_ddp, on_ranks, sent
from gradcheck_cli.drive.ranks.group import Group
from gradcheck_cli.observe.numerics import reducer_for
from gradcheck_cli.observe.ranks.peers import CHECK_EVERY, RankPeers
from gradcheck_cli.observe.recorder import FLUSH_EVERY

ROUNDS: dict[Callable[[], Run], int] = {tiny_mlp: 7, digits_cnn: 7, small_gpt: 5, gpt_10m: 3}


# The ratio to the bare step, on two ranks


def steps() -> Iterator[Table]:
    """A profiled step against the bare one of the same wrapped model, and what of it is not there in one process."""
    for make, rounds in ROUNDS.items():
        run = make()
        table = Table("bare step", "ms", "ratio of", "median", "quartiles", title=f"{run.name}, 2 ranks")
        for strategy, found in on_ranks(2, measure_steps, make, rounds).items():
            for what, one in found.items():
                (low, high), bare = one.spread, 1000 * median(one.baseline) / run.steps
                table.add_row(strategy, f"{bare:.3g}", what, f"{one.ratio:.4f}", f"{low:.4f} - {high:.4f}")
        yield table


def measure_steps(group: Group, make: Callable[[], Run], rounds: int) -> dict[str, dict[str, Comparison]]:
    return {strategy: measure_strategy(group, make, rounds, strategy) for strategy in STRATEGIES}


def measure_strategy(group: Group, make: Callable[[], Run], rounds: int, strategy: str) -> dict[str, Comparison]:
    run = seeded(make, strategy)
    profiled = Profiled(run, group)
    whole: dict[str, Callable[[], object]] = {
        "profiled": profiled.train,
        "profiled, without probes": Profiled(run, group, 0).train,
    }
    if strategy == "ddp":
        torch.manual_seed(0)
        whole["bare, looking for unused parameters"] = in_ddp(make(), find_unused_parameters=True).train
    tasks = tasks_of(run, profiled)
    alone = {name: repeated(task, run.steps) for name, (task, _) in tasks.items()}
    found = compare_all(run.train, whole | alone, rounds)
    for name, (_, often) in tasks.items():
        found[name] = Comparison(found[name].baseline, [often * seconds for seconds in found[name].measured])
    return found


def tasks_of(run: Run, profiled: Profiled) -> dict[str, tuple[Callable[[], object], float]]:
    """What there is to do on several ranks only, and how often in a step."""
    profiled.train()
    # Whole ones, as each rank has them before they are synchronised.
    gradients = [torch.randn(parameter.shape) for parameter in run.model.parameters()]
    measure = partial(reducer_for(torch.device("cpu")).measure, gradients)
    tasks: dict[str, tuple[Callable[[], object], float]] = {
        "agreement": (profiled.agree, 1.0),
        "statistics of the rank's own gradient": (measure, 1.0),
    }
    if isinstance(profiled.peers, RankPeers) and profiled.peers.compared.names:
        tasks[f"checksums every {CHECK_EVERY} steps"] = (profiled.peers.compared.checksums, 1 / CHECK_EVERY)
    return tasks


def repeated(task: Callable[[], object], times: int) -> Callable[[], object]:
    return lambda: [task() for _ in range(times)]


def seeded(make: Callable[[], Run], strategy: str) -> Run:
    torch.manual_seed(0)
    return STRATEGIES[strategy](make())


# What grows with what


@dataclass(frozen=True)
class Shape:
    """A stack of linear layers, each with weight and bias."""

    depth: int
    width: int

    def make(self) -> Run:
        model = nn.Sequential(*(nn.Linear(self.width, self.width) for _ in range(self.depth)))
        batches = [(torch.randn(16, self.width), torch.randn(16, self.width)) for _ in range(4)]
        return Run("stack", model, torch.optim.AdamW(model.parameters()), batches, functional.mse_loss, STEPS)

    @property
    def elements(self) -> int:
        return self.depth * self.width * (self.width + 1)


SHAPES = (Shape(10, 100), Shape(10, 316), Shape(100, 100), Shape(10, 1000))
RANKS = (1, 2, 4, 8)
STEPS = 10
CALLS = 200


@dataclass(frozen=True)
class Scaled:
    """One model on so many ranks: its steps, one agreement, one flush without probed steps, one where all are probed.

    `part` is the number of bytes in what the rank hands over at the end.
    """

    compared: Comparison
    agreement: float
    agreed: Traffic
    flushed: Traffic
    probed: Traffic
    part: int


def scaling() -> Iterator[Table]:
    """What a step, an agreement and a flush cost on more and more ranks."""
    names = ("tensors", "elements", "bare step, ms", "profiled / bare", "agreement, ms", "sent, bytes")
    flushes = ("flush, ms", "all-reduces", "bytes given", "sent, bytes", "probed step: bytes", "rank's part, bytes")
    for size in RANKS:
        table = Table("strategy", *names, *flushes, title=f"{size} ranks, {FLUSH_EVERY} steps a flush")
        for (strategy, shape), found in on_ranks(size, measure_scaling).items():
            table.add_row(strategy, str(2 * shape.depth), f"{shape.elements:.2g}", *cells(found))
        yield table


def cells(found: Scaled) -> list[str]:
    low, high = found.compared.spread
    flushed, probed = found.flushed, found.probed
    return [
        f"{1000 * median(found.compared.baseline) / STEPS:.3g}",
        f"{found.compared.ratio:.2f} ({low:.2f} - {high:.2f})",
        f"{1000 * found.agreement:.3f}",
        f"{found.agreed.sent / CALLS:.0f}",
        f"{1000 * flushed.seconds:.3g}",
        f"{flushed.calls}",
        f"{flushed.given}",
        f"{flushed.sent:.0f}",
        f"{(probed.given - flushed.given) / FLUSH_EVERY:.0f}",
        f"{found.part}",
    ]


def measure_scaling(group: Group) -> dict[tuple[str, Shape], Scaled]:
    return {(strategy, shape): scale(group, shape, strategy) for strategy in STRATEGIES for shape in SHAPES}


def scale(group: Group, shape: Shape, strategy: str) -> Scaled:
    run = seeded(shape.make, strategy)
    profiled = Profiled(run, group)
    ratio = compare(run.train, profiled.train, 3)
    agreement, agreed = measure_agreement(group)
    flushed, probed = (measure_flush(Profiled(run, group, probe_every), group) for probe_every in (0, 1))
    peers = profiled.peers
    part = len(pickle.dumps(peers.part(0.0))) if isinstance(peers, RankPeers) else 0
    return Scaled(ratio, agreement, agreed, flushed, probed, part)


def measure_agreement(group: Group) -> tuple[float, Traffic]:
    """Median seconds of one, and the traffic of CALLS; of several ranks that have nothing else to do."""
    seconds, before = [], sent()
    for _ in range(CALLS):
        began = perf_counter()
        group.largest(np.zeros(2))
        seconds.append(perf_counter() - began)
    return median(seconds), Traffic(CALLS, 16 * CALLS, sum(seconds), sent() - before)


def measure_flush(profiled: Profiled, group: Group) -> Traffic:
    """What it takes to put FLUSH_EVERY steps together that every rank has brought over from its device."""
    with patch("gradcheck_cli.observe.recorder.FLUSH_EVERY", FLUSH_EVERY + 1):
        profiled.train_without_agreeing(FLUSH_EVERY)
        group.largest(np.zeros(1))
        with counted(group) as traffic:
            profiled.recorder.flush()
    return traffic


PARTS: dict[str, Callable[[], Iterator[Table]]] = {"steps": steps, "scaling": scaling}


def main(names: list[str]) -> None:
    console = Console(width=200)
    for name in names or PARTS:
        for table in PARTS[name]():
            console.print(table)
            if hasattr(os, "getloadavg"):
                console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main(sys.argv[1:])
