"""Run a training script as `python script.py ARGUMENTS` or `python -m module ARGUMENTS` would."""

from __future__ import annotations

import atexit
import builtins
import importlib.util
import io
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dis import opmap
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from gradcheck_cli.drive.usercode import headline, is_users, user_code, users_frames
from gradcheck_cli.drive.warned_lines import wrappers_unnamed
from gradcheck_cli.errors import GradcheckError, TargetError
from gradcheck_cli.targets import Script

MAIN = "__main__"


class ScriptStop(BaseException):
    """Ends a script from within, through its `finally` blocks; no Exception, so `except Exception` lets it pass."""


def run(script: Script) -> None:
    """Run it to its end, or to a ScriptStop that a hook of torch's raises in it.

    Raises TargetError when there is no such script, or when it raises or ends with `sys.exit` of anything but success.
    KeyboardInterrupt passes, and is raised where the script answers one with `sys.exit`, as Lightning does. In a
    process that the script forked, nothing returns.
    """
    with user_code(f"{script.words} failed", kind=TargetError), same_interrupts(), wrappers_unnamed():
        try:
            with forks_ending_here():
                execute(script)
        except ScriptStop:
            pass
        except SystemExit as end:
            if is_interrupt(end):
                raise KeyboardInterrupt from end
            if end.code not in (None, 0):
                raise


def describe_failure(error: GradcheckError) -> str:
    """What ended the script, without its name; says so where its own code, or a library but torch, raised it.

    `the code called sys.exit(1)`, `the code raised ValueError: loss is nan`; torch's error as it is.
    """
    line, cause = error.message.partition(": ")[2], error.__cause__
    place = cause.__traceback__ if cause else None
    while place and place.tb_next:
        place = place.tb_next
    if place is None or isinstance(cause, SystemExit):
        return line
    frame = place.tb_frame
    if frame.f_code.co_code[place.tb_lasti] != opmap["RAISE_VARARGS"]:  # a function that is not Python's raised it
        return line
    who = "the code" if is_users(frame.f_code.co_filename) else frame.f_globals["__name__"].partition(".")[0]
    return line if who == "torch" else f"{who} raised {line}"


def is_interrupt(error: BaseException) -> bool:
    """Whether an error was raised while a KeyboardInterrupt was handled."""
    before = error.__context__
    return before is not None and (isinstance(before, KeyboardInterrupt) or is_interrupt(before))


@contextmanager
def same_interrupts() -> Iterator[None]:
    """Ctrl-C does afterwards what it did before: Lightning leaves it ignored."""
    known = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if known is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, known)


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
            _, spec, code = runpy._get_module_details(script.place)  # type: ignore[attr-defined]  # as python -m does
            sys.argv[0] = spec.origin
            known = {"__spec__": spec, "__package__": spec.parent, "__loader__": spec.loader, "__cached__": spec.cached}
            run_main(code, __file__=spec.origin, **known)
        return
    path = Path(script.place).absolute()
    if not path.is_file():
        raise TargetError(f"there is no file {script.place}", f"scripts are looked for from {Path.cwd()}")
    with arguments_of([script.place, *script.arguments]), first_on_path(path.resolve().parent):
        code = compile(read(path), str(path), "exec", dont_inherit=True)
        run_main(code, __file__=str(path), __loader__=SourceFileLoader(MAIN, str(path)), __cached__=None)


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


def run_main(code: CodeType, **members: Any) -> None:
    """Run code in a new `__main__` that has what Python gives to that of a script, and these members."""
    module, known, handlers = ModuleType(MAIN), sys.modules[MAIN], atexit._ncallbacks()
    module.__dict__.update(__builtins__=builtins, **members)
    sys.modules[MAIN] = module
    try:
        exec(code, module.__dict__)
    finally:
        if atexit._ncallbacks() > handlers:  # the last one is called first
            atexit.register(go_back, module, sys.argv, sys.path)
        sys.modules[MAIN] = known


def go_back(module: ModuleType, arguments: list[str], path: list[str]) -> None:
    """Let what is called from here on find what the script found; its atexit handlers count on it."""
    sys.modules[MAIN], sys.argv, sys.path = module, arguments, path


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
