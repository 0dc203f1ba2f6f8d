"""Which lines of the user's source led to a call."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import torch

from gradcheck_cli.records import Location

OWN = str(Path(__file__).resolve().parents[2]) + os.sep
TORCH = str(Path(torch.__file__).parent) + os.sep
STANDARD = sysconfig.get_path("stdlib") + os.sep

Line = tuple[str, int]


class Sites:
    """A number for each path of the user's lines that led to a call."""

    def __init__(self) -> None:
        self._paths: dict[tuple[Line, ...], int] = {}
        self._known: dict[tuple[int, ...], tuple[int, Line | None]] = {}
        self._codes: list[CodeType] = []  # whose identities are in `_known`

    def here(self) -> tuple[int, Line | None]:
        """The number of the path that led here, and its innermost line; None without a line of the user's."""
        frames, place = users_frames(sys._getframe(1))
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self._number(frames)
        return known

    def _number(self, frames: list[FrameType]) -> tuple[int, Line | None]:
        self._codes += [frame.f_code for frame in frames]
        path = tuple((frame.f_code.co_filename, frame.f_lineno) for frame in frames)
        return self._paths.setdefault(path, len(self._paths)), path[0] if path else None


def users_frames(frame: FrameType | None) -> tuple[list[FrameType], tuple[int, ...]]:
    """The user's frames from this one out to the script's own, and where in its code each of them is.

    Which line that is takes longer to find out than all the rest.
    """
    frames, place = [], []
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            frames.append(frame)
            place += [id(code), frame.f_lasti]
            if code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
                break
        frame = frame.f_back
    return frames, tuple(place)


@cache
def is_users(filename: str) -> bool:
    """Whether a file is the user's own: none of gradcheck, torch, Python or an installed package."""
    if "site-packages" in filename or "dist-packages" in filename:
        return False
    return not filename.startswith(("<", OWN, TORCH, STANDARD))


def is_within(function: str, file_ending: str) -> bool:
    """Whether a function of that name, in a file of torch's that ends so, is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        if frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file_ending):
            return True
        frame = frame.f_back
    return False


def location_of(line: Line | None) -> Location | None:
    """A line as records have it."""
    return Location.of(*line) if line else None
