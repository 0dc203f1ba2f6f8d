"""Call the user's code so that its failures become readable errors."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradcheck_cli.errors import GradcheckError, UserCodeError

OWN = str(Path(__file__).resolve().parent.parent)
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))


@contextmanager
def user_code(what: str, hint: str = "", kind: type[GradcheckError] = UserCodeError) -> Iterator[None]:
    """Run user code; `what` says which ("step 3"). Raises `kind` for an exception or `sys.exit` in it."""
    try:
        yield
    except GradcheckError:
        raise
    except SystemExit as error:
        raise kind(f"{what}: the code called sys.exit({error.code!r})", hint, users_frames(error)) from error
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {first_line(error)}", hint, users_frames(error)) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["(no message)"])[0]


def users_frames(error: BaseException) -> str:
    """The traceback as Python prints it, without the frames of libraries and of gradcheck."""
    trimmed = traceback.TracebackException.from_exception(error)
    for part in chain(trimmed):
        part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if is_users(frame.filename)])
    return "".join(trimmed.format()).rstrip()


def chain(error: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """An error and those that led to it."""
    current: traceback.TracebackException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def is_users(filename: str) -> bool:
    """Whether a frame's file is the user's own."""
    internal = filename.startswith(("<", OWN))
    return not internal and "site-packages" not in filename and not filename.startswith(LIBRARIES)
