"""A `python` and a `gradcheck` that start at once: torch is imported once for all the processes of the tests.

Of the three seconds that `gradcheck profile` takes for a tiny model, more than two go into imports. `quick_programs()`
starts a process that has made them, and gives the folder of programs that have it fork. What they start is a process
like any other, with the arguments, directory, environment and files that it was given; signals reach it, and its exit
code, or the signal that ended it, is theirs. They start the true Python where a fork would not be the same: for options
of the interpreter, and for variables that are read when it starts or when torch is imported.

A fork has torch in `sys.modules` from the start, and is not taken apart module by module at its end. A test that asks
which modules are loaded must use `sys.executable`; tests/cli/test_console_script.py runs each command that way.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "OPENBLAS_", "TORCH_LOGS", "TORCHDYNAMO_")
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
READ_BY_US = ("PYTHONPATH", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONUNBUFFERED")
IMPORTED = (
    "torch._dynamo",  # torch's optimizers import it
    "typer._adapters",  # with pydantic, where that is installed
    "rich.live",
    "rich.progress",
    "rich.table",
    "gradcheck_cli.cli.gate",
    "gradcheck_cli.cli.output",
    "gradcheck_cli.pipeline",
    "gradcheck_cli.report.formats",
    "gradcheck_cli.tracing.script_replay",
)


def startup() -> dict[str, str]:
    """The variables that a process must have in common with the one that it is forked from."""
    return {k: v for k, v in os.environ.items() if k.startswith(READ_AT_START) and k not in READ_BY_US}


# In the tests


def quick_programs() -> str:
    """The folder of `python` and `gradcheck`. They are there until this process ends."""
    global _folder
    if not _folder:
        _folder = start()
    return _folder


_folder = ""


def start() -> str:
    """Start the process to be forked, and write the programs that ask it to."""
    import atexit
    import shlex
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="zygote-")
    beside = os.path.dirname(sys.executable)
    for name, words in {"python": [], "gradcheck": [f"{beside}/gradcheck"]}.items():
        line = shlex.join([sys.executable, "-IS", __file__, "ask", folder, *words])
        with open(f"{folder}/{name}", "w") as program:
            program.write(f'#!/bin/sh\nexec {line} "$@"\n')
        os.chmod(f"{folder}/{name}", 0o755)
    environment = {k: v for k, v in os.environ.items() if k not in READ_BY_US}
    command = [sys.executable, __file__, "serve", folder]
    served = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert served.stdin is not None  # it serves until this is closed
    assert served.stdout is not None
    assert served.stdout.readline() == b"listening\n"
    atexit.register(served.wait)
    atexit.register(served.stdin.close)
    return folder


# In the programs


def ask(folder: str, words: list[str]) -> None:
    """Have a process forked for these words, pass signals on to it, and end as it ends."""
    with open(f"{folder}/startup") as file:
        common = json.load(file) == startup()
    words = words[words[:1] == ["-B"] :]  # whether bytecode is written makes no other process
    if not common or not words or (words[0].startswith("-") and words[0] not in ("-c", "-m")):
        os.execv(sys.executable, [sys.executable, *words])
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{folder}/socket")
    descriptors = [number for number in range(100) if is_inherited(number, connection)]
    request = {
        "words": words,
        "descriptors": descriptors,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "ignored": [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN],
    }
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    socket.send_fds(connection, [b"."], descriptors)
    connection.sendall(f"{json.dumps(request)}\n".encode())
    code = int(connection.makefile().read())
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def is_inherited(number: int, connection: socket.socket) -> bool:
    """Whether a number is that of a file that this process was started with."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return number != connection.fileno()


# In the process to be forked


def serve(folder: str) -> list[str]:
    """Fork for whoever asks. Returns in a fork, once it is the process that was asked for: the words to run."""
    import select
    import shutil

    with open(f"{folder}/startup", "w") as file:
        json.dump(startup(), file)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/socket")
    listener.listen(16)
    print("listening", flush=True)
    preload()
    ended, running = notice_ends(), dict[socket.socket, int]()
    while sys.stdin not in (ready := select.select([sys.stdin, listener, ended, *running], [], [])[0]):
        if ended in ready:
            tell_ends(ended, running)
        for connection in running.keys() & ready:
            pass_on(connection, running[connection])
        if listener in ready:
            connection, received, request = receive(listener)
            process = os.fork()
            if not process:
                for known in (listener, ended, connection, *running):
                    known.close()
                return become(f"{folder}/python", received, **request)
            running[connection] = process
            for one in received:
                os.close(one)
    for process in running.values():
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder)
    os._exit(0)


def receive(listener: socket.socket) -> tuple[socket.socket, list[int], dict[str, Any]]:
    """Who asks, with which files, and for what."""
    connection = listener.accept()[0]
    received = socket.recv_fds(connection, 1, 100)[1]
    with connection.makefile() as lines:
        return connection, received, json.loads(lines.readline())


def notice_ends() -> socket.socket:
    """A socket that is ready when a fork has ended."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return ours


def tell_ends(ended: socket.socket, running: dict[socket.socket, int]) -> None:
    """Tell those who asked how their forks have ended."""
    ended.recv(100)
    for connection, process in list(running.items()):
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            del running[connection]
            with connection, contextlib.suppress(OSError):  # whoever asked may be no more
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def pass_on(connection: socket.socket, process: int) -> None:
    """Give a fork its signal, or end it if the one who asked for it is no more."""
    try:
        number = connection.recv(1)[0]
    except (IndexError, OSError):
        number = signal.SIGKILL
    os.kill(process, number)


def preload() -> None:
    """Import what commands import."""
    import gc
    import importlib
    import threading

    sys.path[0] = os.path.dirname(os.path.dirname(__file__))
    for name in IMPORTED:
        with contextlib.suppress(Exception):  # it will fail again where somebody looks
            importlib.import_module(name)
    sys.modules.pop("typer.rich_utils", None)  # asks the environment when it is imported
    assert threading.active_count() == 1, "a fork would lack the other threads"
    gc.freeze()  # a collection in a fork would copy it all


def become(
    python: str,
    received: list[int],
    words: list[str],
    descriptors: list[int],
    folder: str,
    environment: dict[str, str],
    ignored: list[int],
) -> list[str]:
    """Take over what a process is started with."""
    import fcntl
    import multiprocessing

    import numpy as np

    aside = [fcntl.fcntl(one, fcntl.F_DUPFD, 200) for one in received]
    os.closerange(0, 200)
    for number, one in zip(descriptors, aside, strict=True):
        os.dup2(one, number)
        os.close(one)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    open_streams()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    np.random.seed()  # the other generators are seeded anew by a fork, or always the same
    sys.executable = python
    multiprocessing.set_executable(python)
    return words


def open_streams() -> None:
    """Open stdin, stdout and stderr as Python does."""
    import codecs
    import io

    usual = sys.stdout
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", ":").partition(":")
    errors = errors or ("strict" if encoding else usual.errors or "")
    encoding = codecs.lookup(encoding or usual.encoding).name
    raw = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        binary: Any = open(number, "wb" if number else "rb", 0 if raw and number else -1, closefd=False)  # noqa: SIM115
        getattr(binary, "raw", binary).name = f"<{name}>"
        handler = "backslashreplace" if name == "stderr" else errors
        lines = not raw and (name == "stderr" or os.isatty(number))
        text: Any = io.TextIOWrapper(binary, encoding, handler, line_buffering=lines, write_through=raw)
        text.mode = "w" if number else "r"
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def run(words: list[str]) -> None:
    """Run `-c CODE`, `-m MODULE` or SCRIPT, with their arguments, as Python does."""
    import runpy
    import types

    main = sys.modules["__main__"] = types.ModuleType("__main__")
    start, name = words[0], words[1] if words[0] in ("-c", "-m") else words[0]
    sys.argv = [start, *words[2 if start in ("-c", "-m") else 1 :]]
    first = {"-c": "", "-m": os.getcwd()}.get(start, os.path.dirname(os.path.realpath(name)))
    given = [os.path.abspath(one) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:] = [first, *given, *sys.path[1:]]
    if start != "-c" and "gradcheck" not in os.path.basename(name):
        forget("gradcheck_cli")
    if start == "-m":
        runpy._run_module_as_main(name)  # type: ignore[attr-defined]
    elif start == "-c":
        exec(compile(name, "<string>", "exec"), main.__dict__)
    else:
        main.__file__ = os.path.abspath(name)
        with open(name, "rb") as file:
            exec(compile(file.read(), main.__file__, "exec"), main.__dict__)


def run_to_the_end(words: list[str]) -> None:
    """Run, and end without taking apart every module that was forked, which takes longer than most commands."""
    import atexit
    import threading

    try:
        run(words)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    else:
        code = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)
    sys.exit(code)  # Python says what is wrong with the streams


def forget(package: str) -> None:
    """Have a package imported again, from wherever `sys.path` leads to now."""
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        del sys.modules[name]


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3:])
    else:
        run_to_the_end(serve(sys.argv[2]))
