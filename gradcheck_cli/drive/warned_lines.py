"""Torch's warnings name the line that called it, where gradcheck's own wrapper stands between the two."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gradcheck_cli.drive.usercode import OWN


@contextmanager
def wrappers_unnamed() -> Iterator[None]:
    """A warning about a line of gradcheck's is shown as one about the line that called gradcheck."""
    known = warnings.showwarning

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any, **keywords: Any) -> None:
        place = find_caller(filename, lineno) if filename.startswith(OWN) else None
        known(message, category, *(place or (filename, lineno)), *rest, **keywords)

    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:  # else the script has put its own there
            warnings.showwarning = known


def find_caller(filename: str, lineno: int) -> tuple[str, int] | None:
    """File and line of the first frame around this one, in the running call, that is not gradcheck's."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_code.co_filename, frame.f_lineno) != (filename, lineno):
        frame = frame.f_back
    while frame and frame.f_code.co_filename.startswith(OWN):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame else None
