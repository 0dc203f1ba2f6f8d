"""Event files for TensorBoard: a run in DIR, or for each model of a script in DIR/MODEL.

They are written by what TensorBoard's own writer is made of, without its thread: a data loader that forks would lose
that, and a step's numbers are one record here, not one each.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from gradcheck_cli.loggers.extras import load_extra
from gradcheck_cli.loggers.scalars import scalars
from gradcheck_cli.report.output import check_directory
from gradcheck_cli.step_statistics import StepStatistics

FILE_VERSION = "brain.Event:2"
"""What the first record of every event file says."""


def check_folder(folder: str) -> str:
    """The absolute path. Raises ConfigError without TensorBoard, OutputError where there can be no such folder."""
    load_extra("tensorboard.summary.writer.record_writer")
    check_directory(Path(folder))
    return str(Path(folder).absolute())


class TensorBoard:
    """Writes scalars, gradcheck/grad_norm and gradcheck/layer/grad_rms/NAME for example."""

    note = ""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._events = load_extra("tensorboard.compat.proto.event_pb2")
        self._summaries = load_extra("tensorboard.compat.proto.summary_pb2")
        self._writers: dict[str, Any] = {}

    def write(self, step: StepStatistics) -> None:
        """Append a record with all numbers of a step."""
        if step.model not in self._writers:
            self._writers[step.model] = self._open(self._folder / step.model)
        value = self._summaries.Summary.Value
        values = [value(tag=f"gradcheck/{tag}", simple_value=number) for tag, number in scalars(step).items()]
        self._append(step.model, step=step.step, summary=self._summaries.Summary(value=values))

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, folder: Path) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.gradcheck"
        file = open(folder / name, "ab", buffering=0)  # noqa: SIM115
        writer = load_extra("tensorboard.summary.writer.record_writer").RecordWriter(file)
        writer.write(self._record(file_version=FILE_VERSION))
        return writer

    def _append(self, model: str, **members: Any) -> None:
        self._writers[model].write(self._record(**members))

    def _record(self, **members: Any) -> bytes:
        record: bytes = self._events.Event(wall_time=time.time(), **members).SerializeToString()
        return record
