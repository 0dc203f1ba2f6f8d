"""Call the user's code so that its failures become readable errors."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradcheck_cli.errors import GradcheckError, UserCodeError

OWN = str(Path(__file__).resolve().parent.parent) + os.sep
ORIGINAL = "Original Traceback (most recent call last):"
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


@contextmanager
def user_code(what: str, hint: str = "", kind: type[GradcheckError] = UserCodeError) -> Iterator[None]:
    """Run user code; `what` says which ("step 3"). Raises `kind` for an exception or `sys.exit` in it."""
    try:
        yield
    except (GradcheckError, KeyboardInterrupt, GeneratorExit):
        raise
    except SystemExit as error:
        raise kind(f"{what}: the code called sys.exit({error.code!r})", hint, users_frames(error)) from error
    except BaseException as error:  # pytest.skip and asyncio.CancelledError are no Exception
        raise kind(f"{what}: {headline(error)}", hint, users_frames(error)) from error


def headline(error: BaseException) -> str:
    """An error's type and the first line of its message; of a data loader's worker the last, which says why."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an error whose own __str__ fails
        lines = []
    if ORIGINAL in lines:
        return lines[-1]
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"


def users_frames(error: BaseException) -> str:
    """The traceback as Python prints it, without the frames of libraries and of gradcheck.

    Empty where that leaves a single line, which says no more than the message does.
    """
    trimmed = traceback.TracebackException.from_exception(error)
    for part in chain(trimmed):
        frames = [frame for frame in part.stack if is_users(frame.filename)]
        # None: no heading either
        part.stack = traceback.StackSummary.from_list(frames) if frames else None  # type: ignore[assignment]
    lines = list(without_library_frames("".join(trimmed.format()).splitlines()))
    return "\n".join(lines) if len(lines) > 1 else ""


def without_library_frames(lines: Iterable[str]) -> Iterator[str]:
    """Drop the frames of libraries from a traceback that is text: a data loader's worker sends one as its message."""
    indent, dropping = 0, False
    for line in lines:
        if frame := re.match(r'( *)File "([^"]+)", line \d+', line):
            indent, dropping = len(frame[1]), not is_users(frame[2])
        elif line[: indent + 1].strip():  # the frame's own lines are indented further
            dropping = False
        if not dropping:
            yield line


def chain(error: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """An error, those that led to it, and those in it if it is a group."""
    yield error
    led_to_it = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (led_to_it, *(getattr(error, "exceptions", None) or ())):
        if other is not None:
            yield from chain(other)


def is_users(filename: str) -> bool:
    """Whether a frame's file is the user's own."""
    internal = filename.startswith(("<", OWN))
    return not internal and "site-packages" not in filename and not filename.startswith(LIBRARIES)
