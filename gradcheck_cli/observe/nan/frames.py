"""Which line of source is running."""

from __future__ import annotations

import ast
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import torch

from gradcheck_cli.records import Location
from gradcheck_cli.tape import Frame

TORCH = str(Path(torch.__file__).parent) + os.sep
OWN = str(Path(__file__).resolve().parents[2]) + os.sep
HOOKS = tuple(os.path.join(OWN, "observe", name) for name in ("hooks.py", "session.py", "search.py"))
"""What calls the user's code on."""
ENGINE = os.path.join("torch", "autograd", "graph.py")
STANDARD = sysconfig.get_path("stdlib") + os.sep
CHECKPOINT = os.path.join("torch", "utils", "checkpoint.py")
MODULES = os.path.join(TORCH, "nn", "modules") + os.sep


def current_frame(in_backward: bool = False, making: object = None) -> Frame | None:
    """The innermost line outside torch, with the user's line that led to it if that is in a library.

    In backward only what runs inside it counts: a custom function's derivative, a hook, a checkpointed forward
    pass. Without any line of the user's, the module of torch that was called. The __init__ of what is being made
    (`making`) is no line either.
    """
    stack = [frame for frame in frames(in_backward) if making is None or not initialises(frame, making)]
    outside = [frame for frame in stack if not frame.f_code.co_filename.startswith((TORCH, OWN, "<"))]
    if not outside:
        inside = [frame for frame in stack if frame.f_code.co_filename.startswith(MODULES)]
        outside = [frame for frame in inside if frame.f_code.co_name == "forward"][:1]
    if not outside:
        return None
    own = next((frame for frame in outside if not is_library(frame.f_code.co_filename)), None)
    return describe(outside[0], None if own is outside[0] else own)


def frames(in_backward: bool) -> Iterator[FrameType]:
    """From the innermost frame outwards, up to those that called gradcheck; in backward only up to the engine."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and is_own(frame):
        frame = frame.f_back
    while frame is not None and not is_own(frame):
        if in_backward and frame.f_code.co_filename.endswith(ENGINE):
            return
        yield frame
        frame = frame.f_back


def initialises(frame: FrameType, made: object) -> bool:
    """Whether a frame is the __init__ of an object."""
    return frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is made


def is_own(frame: FrameType) -> bool:
    """Whether it is gradcheck's, and not a hook's that torch calls on the way."""
    return frame.f_code.co_filename.startswith(OWN) and not frame.f_code.co_filename.startswith(HOOKS)


def is_library(filename: str) -> bool:
    """Whether it is a file of an installed package or of Python's own."""
    return filename.startswith(STANDARD) or "site-packages" in filename or "dist-packages" in filename


def describe(frame: FrameType, caller: FrameType | None) -> Frame:
    """A frame as plain values."""
    code = frame.f_code
    function = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
    return Frame(
        location=Location.of(code.co_filename, frame.f_lineno),
        function=function,
        code=linecache.getline(code.co_filename, frame.f_lineno, frame.f_globals).strip(),
        expression=expression(code, frame.f_lasti),
        called_from=Location.of(caller.f_code.co_filename, caller.f_lineno) if caller else None,
    )


def expression(code: CodeType, instruction: int) -> str:
    """The source of what an instruction computes, from Python 3.11 on; "" where it is not known."""
    positions = getattr(code, "co_positions", None)
    if positions is None:
        return ""
    first, last, begin, end = list(positions())[instruction // 2]
    if None in (first, last, begin, end):
        return ""
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(first, last + 1)]
    if lines[0][:begin].rstrip().endswith(b"."):  # a method on a line of its own: Python tells no more of it
        return ""
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    text = b"".join(lines).decode(errors="replace")
    return text if parses(text) else ""


def parses(text: str) -> bool:
    """Whether it is an expression."""
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return True


def is_recomputing() -> bool:
    """Whether gradient checkpointing is running a forward pass again, inside backward."""
    return any(frame.f_code.co_filename.endswith(CHECKPOINT) for frame in frames(in_backward=True))
