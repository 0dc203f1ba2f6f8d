"""One line of JSON a step; docs/loggers.md describes its members."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from gradcheck_cli.errors import OutputError
from gradcheck_cli.report.json_document import encode
from gradcheck_cli.report.output import check
from gradcheck_cli.step_statistics import StepStatistics


def check_path(path: str) -> str:
    """The absolute path. Raises OutputError where there can be no such file."""
    try:
        check(Path(path))
    except OutputError as error:
        raise OutputError(error.message, "name another file: --log jsonl:PATH") from error
    return str(Path(path).absolute())


class JsonLines:
    """Writes a file of whole lines, in place of one that is there, each at once and without a buffer."""

    note = ""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115

    def write(self, step: StepStatistics) -> None:
        """Append a line; nothing of it stays where there is no room for all."""
        line = (json.dumps(encode(step), allow_nan=False) + "\n").encode("ascii")
        end = self._file.tell()
        if self._file.write(line) != len(line):
            self._file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
