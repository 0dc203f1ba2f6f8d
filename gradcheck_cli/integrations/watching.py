"""`gradcheck_cli.watch`: what profile measures and says, of a training loop that stays where it is."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from gradcheck_cli import __version__
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.integrations.relay import RELAY, Heard
from gradcheck_cli.integrations.selective_recorder import SelectiveRecorder
from gradcheck_cli.judgement import check_selection, make_report
from gradcheck_cli.observe.naming import source_of
from gradcheck_cli.observe.ranks.shards import split_dimensions
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.records import Recording, Report, RunInfo
from gradcheck_cli.report.formats import format_of, render
from gradcheck_cli.report.output import write
from gradcheck_cli.report.view import View

PRECISIONS = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}


@dataclass(frozen=True)
class SeenBatch:
    """A batch and its place: `index` within its `epoch`, both from 0."""

    index: int
    epoch: int
    data: Any


class Watch:
    """What has been seen of a model and its optimizer; open until `close`, readable before and after."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, run: RunInfo, settings: Settings) -> None:
        check_selection(settings)
        if any(split_dimensions(parameter) for parameter in model.parameters()):
            raise GradcheckError(
                "each rank has only a part of these parameters, whose norms would be wrong",
                "torchrun ... -m gradcheck_cli profile train.py puts the parts of all ranks together",
            )
        recorder = RecorderSettings(settings.probe_every, settings.max_recorded_steps, keep_going=True)
        self._recorder = SelectiveRecorder(model, optimizer, recorder)
        self._heard = Heard(self._recorder)
        self._run, self._settings = run, settings
        self.is_open = False

    def open(self) -> None:
        """Begin to record."""
        RELAY.attach(self._heard)
        self.is_open = True

    def close(self) -> None:
        """Stop recording, if that has not been done."""
        if self.is_open:
            self.is_open = False
            RELAY.detach(self._heard)

    @property
    def recording(self) -> Recording:
        """All optimizer steps so far; waits for those that are still on an accelerator."""
        recording = self._recorder.recording(self._run)
        scaled = bool(np.isfinite(recording.series.loss_scale).any())
        run = replace(
            self._run,
            steps_requested=recording.steps,
            uses_scaler=scaled,
            precision="fp16" if scaled else self._run.precision,
            max_norm=self._run.max_norm or self._recorder.max_norm,
        )
        return replace(recording, run=self._heard.scales.with_notes(self._heard, run))

    def report(self, ended: str = "completed") -> Report:
        """What `gradcheck profile` says of the steps so far. Raises GradcheckError when there was none.

        `ended` is one of those of RunInfo.
        """
        recording = self.recording
        if not recording.steps:
            raise GradcheckError(
                f"{recording.run.optimizer} has made no step since the watch began",
                "watch the torch optimizer that is stepped, not a wrapper of it",
            )
        run = replace(recording.run, ended=ended)
        return make_report("profile", replace(recording, run=run), self._settings)

    def print(self, file: TextIO | None = None) -> None:
        """Print the report as a table, to stderr unless there is a `file`."""
        show(self.report(), file or sys.stderr)

    def save(self, path: str | Path) -> None:
        """Write the report; the suffix chooses the format: .json, .npz, .txt. Raises OutputError when it cannot."""
        save(self.report(), Path(path))

    def look_at(self, batch: Any, index: int, epoch: int) -> None:
        """Note which batch is about to be trained on, and whether it holds NaN or Inf."""
        for _ in self._recorder.inspect([SeenBatch(index, epoch, batch)]):
            pass


@contextmanager
def watch(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    probe_every: int = 10,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
) -> Iterator[Watch]:
    """Watch every step of `optimizer` until the context ends; training stays bit for bit what it was.

    Several may be open at once, each for its own model and optimizer. `probe_every`, `select` and `ignore` are those
    of `gradcheck profile`. Raises ConfigError for a code that no rule has.
    """
    settings = Settings(probe_every=probe_every, select=tuple(select), ignore=tuple(ignore), fail_on="never")
    watched = Watch(model, optimizer, describe(model, optimizer), settings)
    watched.open()
    try:
        yield watched
    finally:
        watched.close()


def describe(model: nn.Module, optimizer: Optimizer, precision: str = "") -> RunInfo:
    """What is trained, as far as the model tells; `precision` is that of its first parameter where nothing is given."""
    first = next((p for group in optimizer.param_groups for p in group["params"]), None)
    return RunInfo(
        target=type(model).__name__,
        device="" if first is None else str(first.device),
        precision=precision or PRECISIONS.get(torch.float32 if first is None else first.dtype, "fp32"),
        seed=None,
        optimizer=type(optimizer).__name__,
        location=source_of(type(model)),
        versions={"gradcheck": __version__, "torch": torch.__version__, "numpy": np.__version__},
        threads=torch.get_num_threads(),
    )


def show(report: Report, stream: TextIO) -> None:
    """Print a report as a table in the form that suits the stream."""
    text = str(render(report, "table", View.of(stream)))
    stream.write(text if text.endswith("\n") else text + "\n")
    stream.flush()


def save(report: Report, path: Path) -> None:
    """Write a report in the format of the path's suffix. Raises OutputError when it cannot be written."""
    write(path, render(report, format_of(path), View(width=100)))
