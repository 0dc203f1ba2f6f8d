"""Keep stdout for the report: whatever the user's code prints goes to stderr."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from gradcheck_cli.errors import OutputError


def reserve_stdout() -> TextIO:
    """The real stdout as a new stream; from now on everything else that prints to stdout reaches stderr.

    It is done on the file descriptor, so that C code, child processes and what runs at exit follow, and it is not
    undone: the process ends after its report.
    """
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    return stream


def emit(stream: TextIO, text: str) -> None:
    """Print the report; a reader that has gone away (`| head`) is no error. Raises OutputError for all others."""
    try:
        stream.write(text if text.endswith("\n") else text + "\n")
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is still in the buffer
        if not isinstance(error, BrokenPipeError):
            raise OutputError(
                f"cannot write the report to stdout: {error.strerror}", "redirect it to a file"
            ) from error
