"""Which lines of the user's source led to a call."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

import torch

from gradcheck_cli.observe.native import library
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
        place = library.COMPILED.users_path(USERS) if library.COMPILED else None
        if place is None:
            place = path_of(users_frames(sys._getframe(1)))
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = self._number(users_frames(sys._getframe(1)))
        return known

    def _number(self, frames: list[FrameType]) -> tuple[int, Line | None]:
        self._codes += [frame.f_code for frame in frames]
        path = tuple((frame.f_code.co_filename, frame.f_lineno) for frame in frames)
        return self._paths.setdefault(path, len(self._paths)), path[0] if path else None


def users_frames(frame: FrameType | None) -> list[FrameType]:
    """The user's frames from this one out to the script's own."""
    frames = []
    while frame is not None:
        code = frame.f_code
        if USERS[code.co_filename]:
            frames.append(frame)
            if code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
                break
        frame = frame.f_back
    return frames


def path_of(frames: list[FrameType]) -> tuple[int, ...]:
    """`Reductions.users_path`; which lines these are takes longer to find out than all the rest."""
    return tuple(number for frame in frames for number in (id(frame.f_code), frame.f_lasti))


class Files(dict[str, bool]):
    """Which files are the user's own: none of gradcheck, torch, Python or an installed package."""

    def __missing__(self, name: str) -> bool:
        installed = "site-packages" in name or "dist-packages" in name
        self[name] = is_own = not installed and not name.startswith(("<", OWN, TORCH, STANDARD))
        return is_own


USERS = Files()


def is_within(function: str, file_ending: str) -> bool:
    """Whether a function of that name, in a file of torch's that ends so, is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not USERS[frame.f_code.co_filename]:
        if frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file_ending):
            return True
        frame = frame.f_back
    return False


def location_of(line: Line | None) -> Location | None:
    """A line as records have it."""
    return Location.of(*line) if line else None
