"""Call the user's code so that its failures become readable errors."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradcheck_cli.errors import GradcheckError, UserCodeError

OWN = str(Path(__file__).resolve().parent.parent) + os.sep
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
        raise kind(f"{what}: {type(error).__name__}: {first_line(error)}", hint, users_frames(error)) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["(no message)"])[0]


def users_frames(error: BaseException) -> str:
    """The traceback as Python prints it, without the frames of libraries and of gradcheck.

    Empty where that leaves a single line, which says no more than the message does.
    """
    trimmed = traceback.TracebackException.from_exception(error)
    for part in chain(trimmed):
        frames = [frame for frame in part.stack if is_users(frame.filename)]
        # None: no heading either
        part.stack = traceback.StackSummary.from_list(frames) if frames else None  # type: ignore[assignment]
    text = "".join(trimmed.format()).rstrip()
    return text if "\n" in text else ""


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
