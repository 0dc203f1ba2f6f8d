"""Run a training script as `python script.py ARGUMENTS` or `python -m module ARGUMENTS` would."""

from __future__ import annotations

import atexit
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

from gradcheck_cli.drive.usercode import headline, user_code, users_frames
from gradcheck_cli.errors import TargetError
from gradcheck_cli.targets import Script

MAIN = "__main__"


class ScriptStop(BaseException):
    """Ends a script from within, through its `finally` blocks; no Exception, so `except Exception` lets it pass."""


def run(script: Script) -> None:
    """Run it to its end, or to a ScriptStop that a hook of torch's raises in it.

    Raises TargetError when there is no such script, or when it raises or ends with `sys.exit` of anything but success.
    KeyboardInterrupt passes. In a process that the script forked, nothing returns.
    """
    with user_code(f"{script.words} failed", kind=TargetError):
        try:
            with forks_ending_here():
                execute(script)
        except ScriptStop:
            pass
        except SystemExit as end:
            if end.code not in (None, 0):
                raise


@contextmanager
def forks_ending_here() -> Iterator[None]:
    """Processes that are forked inside end with this context, as Python would end them: the report is the parent's."""
    parent, error = os.getpid(), None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        if os.getpid() != parent:
            leave(error)


def leave(error: BaseException | None) -> None:
    """End this process, with what Python says and returns for such an error."""
    code = error.code if isinstance(error, SystemExit) else error and (users_frames(error) or headline(error))
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def execute(script: Script) -> None:
    """Run its source as `__main__`."""
    if script.is_module:
        with arguments_of(["-m", *script.arguments]), first_on_path(Path.cwd()):
            check_module(script.place)
            runpy.run_module(script.place, run_name=MAIN, alter_sys=True)
        return
    path = Path(script.place).absolute()
    if not path.is_file():
        raise TargetError(f"there is no file {script.place}", f"scripts are looked for from {Path.cwd()}")
    with arguments_of([script.place, *script.arguments]), first_on_path(path.resolve().parent):
        with main_module(path) as module:
            exec(compile(read(path), str(path), "exec", dont_inherit=True), module.__dict__)


def check_module(name: str) -> None:
    """Raise TargetError where there is no such module. Imports its parents, as `python -m` does."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):  # one that a parent imports
            raise
        found = None
    if found is None:
        raise TargetError(f"there is no module {name}", f"modules are looked for from {Path.cwd()}")


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
    """The folder first on `sys.path`; afterwards that is as it was."""
    known, sys.path = sys.path, [str(folder), *sys.path]
    try:
        yield
    finally:
        sys.path = known
