"""Run a training script as `python script.py ARGUMENTS` or `python -m module ARGUMENTS` would."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from gradcheck_cli.drive.usercode import user_code
from gradcheck_cli.errors import TargetError
from gradcheck_cli.targets import Script

MAIN = "__main__"


class ScriptStop(BaseException):
    """Ends a script from within, through its `finally` blocks; no Exception, so that no handler of its own keeps it."""


def check(script: Script) -> None:
    """Raise TargetError when there is no such file or module."""
    if not script.is_module:
        if not Path(script.place).is_file():
            raise TargetError(f"there is no file {script.place}", f"scripts are looked for from {Path.cwd()}")
        return
    with first_on_path(Path.cwd()):
        try:
            found = importlib.util.find_spec(script.place)
        except (ImportError, ValueError):
            found = None
    if found is None:
        raise TargetError(f"there is no module {script.place}", f"modules are looked for from {Path.cwd()}")


def run(script: Script) -> None:
    """Run it to its end, or to a ScriptStop that a hook of torch's raises in it.

    Raises TargetError when there is no such script, or when it raises or ends with `sys.exit` of anything but success.
    KeyboardInterrupt passes. In a process that the script forked, nothing returns.
    """
    check(script)
    parent = os.getpid()
    try:
        with user_code(f"{script.words} failed", kind=TargetError):
            try:
                execute(script)
            except ScriptStop:
                pass
            except SystemExit as end:
                if end.code not in (None, 0) and os.getpid() == parent:
                    raise
    finally:
        if os.getpid() != parent:
            leave(sys.exc_info()[1])


def leave(error: BaseException | None) -> None:
    """End a forked process: the report is its parent's."""
    if error is not None:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if error is None else 1)


def execute(script: Script) -> None:
    """Run its source as `__main__`."""
    path = Path(script.place).absolute()
    with (
        arguments_of([script.place, *script.arguments]),
        first_on_path(Path.cwd() if script.is_module else path.resolve().parent),
    ):
        if script.is_module:
            runpy.run_module(script.place, run_name=MAIN, alter_sys=True)
        else:
            with main_module(path) as module:
                exec(compile(read(path), str(path), "exec"), module.__dict__)


def read(path: Path) -> bytes:
    with io.open_code(str(path)) as file:
        return file.read()


@contextmanager
def main_module(path: Path) -> Iterator[ModuleType]:
    """A new `__main__`, with what Python gives to that of a script."""
    module, known = ModuleType(MAIN), sys.modules[MAIN]
    loader = SourceFileLoader(MAIN, str(path))
    module.__dict__.update(__file__=str(path), __builtins__=builtins, __loader__=loader, __cached__=None)
    sys.modules[MAIN] = module
    try:
        yield module
    finally:
        sys.modules[MAIN] = known


@contextmanager
def arguments_of(arguments: Sequence[str]) -> Iterator[None]:
    """`sys.argv`, as the script expects it."""
    known, sys.argv = sys.argv, list(arguments)
    try:
        yield
    finally:
        sys.argv = known


@contextmanager
def first_on_path(folder: Path) -> Iterator[None]:
    """The folder first on `sys.path`, and again without it afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
