"""Print every figure that gradcheck claims; `python -m benchmarks steps` prints one part."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from benchmarks.interleaved import HELD_MEMORY, Comparison, compare
from benchmarks.models import RUNS, Run, digits_cnn, gpt2_gradients, tiny_mlp
from gradcheck_cli.drive.batches import Batch, clone
from gradcheck_cli.observe.audit.auditor import Auditor
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.nan.snapshot import Snapshot
from gradcheck_cli.observe.nan.watch import Watch
from gradcheck_cli.observe.numerics import reducer_for
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.session import Session

Row = tuple[str, str, Comparison, str]


def steps() -> list[Row]:
    """A profiled training step against the bare one, probed steps included."""
    rows = []
    for make in RUNS:
        torch.manual_seed(0)
        run = make()
        recorder = Recorder(run.model, run.optimizer)
        compared = compare(run.train, partial(profiled, run, recorder), ROUNDS)
        rows.append((run.name, "profiled / bare step", compared, AIMS.get(run.name, "")))
    return rows


def profiled(run: Run, recorder: Recorder) -> None:
    with recorder:
        run.train()


def scripts() -> list[Row]:
    """The same steps in a script that `gradcheck profile` runs: nobody says which model and which optimizer."""
    rows = []
    for make in RUNS:
        name, compared = make().name, compare_scripts(make, script_watch, 7)
        rows.append((name, "script under profile / bare step", compared, AIMS.get(name, "")))
    return rows


@contextmanager
def script_watch() -> Iterator[None]:
    """What `pipeline.scripting` puts around a script."""
    with Session(RecorderSettings(), lambda one: None), Auditor():
        yield


def compare_scripts(
    make: Callable[[], Run], watch: Callable[[], AbstractContextManager[None]], rounds: int
) -> Comparison:
    """Rounds with and without, in turn, each of which makes its model and its optimizer, as a script does.

    The first step, in which they are found, is not timed.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            with watch() if which else nullcontext():
                torch.manual_seed(0)
                run = make()
                run = replace(run, steps=max(run.steps, SCRIPT_STEPS))
                run.train_step(next(iter(run.batches)))
                began = perf_counter()
                run.train()
                seconds[which].append(perf_counter() - began)
    return Comparison(seconds[0][1:], seconds[1][1:])


def watching() -> list[Row]:
    """A step that nan-trace watches against the bare one, and what detect_anomaly makes of the same."""
    rows = []
    for make in RUNS:
        torch.manual_seed(0)
        run = make()
        watch = Watch(run.model, clone, frozenset())
        before = Snapshot([run.model], [run.optimizer], None, GradScaler(enabled=False))
        compared = compare(run.train, partial(watched, run, watch, before), 15)
        rows.append((run.name, "watched / bare step", compared, AIMS.get(run.name, "")))
        compared = compare(run.train, partial(under_anomaly_detection, run), 5)
        rows.append((run.name, "detect_anomaly / bare step", compared, ""))
    return rows


def watched(run: Run, watch: Watch, before: Snapshot) -> None:
    """What `tracing.run` does around each step; a batch has its number in the bare loop of `drive`, too."""
    numbered = (Batch(0, 0, data) for data in run.endless()) if isinstance(run.batches, DataLoader) else endless(run)
    with observed(watch):
        for _, numbered_batch in zip(range(run.steps), numbered, strict=False):
            for batch in watch.inspect([numbered_batch]):
                run.train_step(batch.data)
            if watch.end_step():
                assert not watch.look()
                before.take()
                watch.begin_window()


def endless(run: Run) -> Iterator[Batch]:
    """Batches that are made beforehand, numbered beforehand."""
    return itertools.cycle([Batch(0, 0, data) for data in run.batches])


def under_anomaly_detection(run: Run) -> None:
    with warnings.catch_warnings(), torch.autograd.detect_anomaly():
        run.train()


def statistics() -> list[Row]:
    """One pass of all statistics over 124M gradient elements."""
    gradients = gpt2_gradients()
    reducer = reducer_for(torch.device("cpu"))
    memory = gradients[0].new_empty(0).set_(gradients[0].untyped_storage())
    measured = partial(reducer.measure, gradients)
    return [
        ("GPT-2 small, 124M", "statistics / one read", compare(memory.sum, measured, 15), "<= 5"),
        ("GPT-2 small, 124M", "statistics / six naive calls", compare(partial(naive, gradients), measured, 5), "< 1"),
    ]


def naive(gradients: list[torch.Tensor]) -> list[tuple[float, ...]]:
    """The loop that is usually written."""
    return [
        (
            g.norm().item(),
            g.abs().max().item(),
            g.mean().item(),
            g.std().item(),
            (g == 0).float().mean().item(),
            float(torch.isfinite(g).all()),
        )
        for g in gradients
    ]


def wandb() -> list[Row]:
    """The same steps under wandb.watch, offline, where wandb is installed."""
    if importlib.util.find_spec("wandb") is None:
        return []
    from benchmarks.wandb_watch import watched

    rows = []
    for make in (tiny_mlp, digits_cnn):
        run, other = make(), make()
        recorder = Recorder(run.model, run.optimizer)
        with watched(other) as train:
            compared = compare(train, partial(profiled, run, recorder), 7)
        rows.append((run.name, "profiled / wandb.watch(log='all', log_freq=1)", compared, ""))
    return rows


def startup() -> list[Row]:
    """`gradcheck --help` as a process, against importing typer."""
    compared = compare(partial(python, "-c", "import typer"), partial(python, "-m", "gradcheck_cli", "--help"), 15)
    return [("gradcheck --help", "process / python -c 'import typer'", compared, "<= 3")]


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)


ROUNDS = 41
"""On a machine that others use too, the median of 15 moves by several per cent of a step as short as the tiny MLP's."""
SCRIPT_STEPS = 60
"""Rounds are new sessions: shorter ones would be made of the first steps, which are probed one after another."""
AIMS = {"tiny MLP": "<= 1.15", "tiny MLP with its DataLoader": "<= 1.15", "GPT, 10M parameters": "<= 1.03"}
PARTS: dict[str, Callable[[], list[Row]]] = {
    "steps": steps,
    "scripts": scripts,
    "watching": watching,
    "statistics": statistics,
    "wandb": wandb,
    "startup": startup,
}


def hold_memory() -> None:
    """Start again with an allocator that gives no memory back to the system.

    Otherwise some layouts of the heap make every step fault its memory in again, and others none: the same loop then
    takes up to a fifth longer in one process than in another, whoever watches.
    """
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], {**os.environ, **HELD_MEMORY})


def main(names: list[str]) -> None:
    table = Table("what", "ratio of", "median", "quartiles", "aim")
    for name in names or PARTS:
        for what, ratio, compared, wanted in PARTS[name]():
            low, high = compared.spread
            table.add_row(what, ratio, f"{compared.ratio:.3f}", f"{low:.3f} - {high:.3f}", wanted)
    Console(width=120).print(table)


if __name__ == "__main__":
    hold_memory()
    main(sys.argv[1:])
