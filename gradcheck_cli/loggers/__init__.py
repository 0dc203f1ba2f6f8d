"""Where the steps of a run can be written while it goes on. A new logger is a file here and a line in LOGGERS.

Nothing is made before the first step. A logger that fails is left out from there on: the training goes on.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Protocol

from gradcheck_cli.errors import ConfigError
from gradcheck_cli.loggers import jsonl, tensorboard, wandb
from gradcheck_cli.step_statistics import StepStatistics


class Sink(Protocol):
    """Takes steps, of one model or of several in turn; `note` is what the report should say of it."""

    note: str

    def write(self, step: StepStatistics) -> None:
        """Write a step so that it can be read now."""
        ...

    def close(self) -> None:
        """Write no more."""
        ...


@dataclass(frozen=True)
class Logger:
    """`check` gives its argument as it holds in any directory; it raises GradcheckError where `open` is bound to fail.

    `usage` is how it is asked for; an argument in brackets may be left out.
    """

    name: str
    usage: str
    check: Callable[[str], str]
    open: Callable[[str], Sink]


LOGGERS: Mapping[str, Logger] = {
    entry.name: entry
    for entry in (
        Logger("tensorboard", "tensorboard:DIR", tensorboard.check_folder, tensorboard.TensorBoard),
        Logger("wandb", "wandb[:PROJECT]", wandb.check_project, wandb.Wandb),
        Logger("jsonl", "jsonl:PATH", jsonl.check_path, jsonl.JsonLines),
    )
}
USAGE = f"--log {', '.join(entry.usage for entry in LOGGERS.values())}"


def check(requests: Sequence[str]) -> tuple[str, ...]:
    """The same requests, as they hold in any directory, to be asked for before a run.

    Raises ConfigError for a logger that is unknown or not installed, OutputError for what cannot be written.
    """
    return tuple(dict.fromkeys(check_one(request) for request in requests))


def check_one(request: str) -> str:
    """As `check`, one."""
    name, separator, argument = request.partition(":")
    if name not in LOGGERS:
        close = difflib.get_close_matches(name, LOGGERS, 1)
        raise ConfigError(f"--log {request}: no such logger", f"did you mean {close[0]}?" if close else USAGE)
    logger = LOGGERS[name]
    if not argument and (separator or "[" not in logger.usage):
        raise ConfigError(f"--log {request}: nothing follows the name", f"write --log {logger.usage}")
    return f"{name}{separator}{logger.check(argument)}"


class Log:
    """Hands every step to the loggers that `check` let pass, while the context is open."""

    def __init__(self, requests: Sequence[str]) -> None:
        self._requests = requests
        self._sinks: dict[str, Sink] | None = None
        self._process = os.getpid()
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for request, sink in list((self._sinks or {}).items()):
            self.notes += (sink.note,) if sink.note else ()
            self._attempt(request, sink.close)

    @property
    def wanted(self) -> Callable[[StepStatistics], None] | None:
        """Who is to be told of steps, if anybody."""
        return self.write if self._requests else None

    def write(self, step: StepStatistics) -> None:
        """Write a step; what is trained in a fork is nobody's business."""
        if os.getpid() != self._process:
            return
        if self._sinks is None:
            self._sinks = {}
            for request in self._requests:
                self._attempt(request, partial(self._open, request))
        for request, sink in list(self._sinks.items()):
            self._attempt(request, partial(sink.write, step))

    def _open(self, request: str) -> None:
        name, _, argument = request.partition(":")
        assert self._sinks is not None
        self._sinks[request] = LOGGERS[name].open(argument)

    def _attempt(self, request: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a disk may be full, a server away: no reason to end somebody's training
            note = f"--log {request} ended early: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
            self.notes += (note,)
            print(f"gradcheck: {note}", file=sys.stderr)
            if self._sinks and (sink := self._sinks.pop(request, None)):
                with suppress(Exception):
                    sink.close()
