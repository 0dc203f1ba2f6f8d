"""The quick `python` of the tests is a Python like any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zygote import IMPORTED, READ_BY_US, quick_programs

FACTS = """
import json, os, signal, sys
main = sys.modules["__main__"]
print(json.dumps({
    "streams": [(one.name, one.encoding, one.errors, one.line_buffering, one.isatty())
                for one in (sys.stdin, sys.stdout, sys.stderr)],
    "path": list(dict.fromkeys(sys.path)),
    "argv": sys.argv,
    "names": (__name__, getattr(main, "__file__", None), main.__dict__ is globals()),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "inherited": [number for number in range(99) if os.path.exists(f"/dev/fd/{number}") and os.get_inheritable(number)],
    "environment": {name: value for name, value in os.environ.items() if name not in ("_", "PWD")},  # the shell's own
    "folder": os.getcwd(),
    "input": sys.stdin.read(),
}))
"""
Start = Callable[..., "subprocess.CompletedProcess[str]"]


def start(python: str, *words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in READ_BY_US} | variables
    return subprocess.run(
        [python, *words], cwd=folder, env=environment, input="from a pipe", capture_output=True, text=True, check=False
    )


@pytest.fixture
def quick(tmp_path: Path) -> Start:
    return lambda *words, **variables: start(f"{quick_programs()}/python", *words, folder=tmp_path, **variables)


@pytest.mark.parametrize(
    "variables",
    [{}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1:replace", "PYTHONPATH": f"x{os.pathsep}/y"}],
)
@pytest.mark.parametrize("words", [["-c", FACTS], ["-m", "facts", "-c", "1"], ["facts.py", "-m", "x y"]])
def test_it_finds_what_python_finds(words: list[str], variables: dict[str, str], quick: Start, tmp_path: Path) -> None:
    (tmp_path / "facts.py").write_text(FACTS)
    theirs = start(sys.executable, *words, folder=tmp_path, **variables)
    assert theirs.returncode == 0, theirs.stderr
    ours = quick(*words, **variables)
    assert (json.loads(ours.stdout), ours.stderr) == (json.loads(theirs.stdout), "")


@pytest.mark.parametrize(
    ("source", "code", "stdout", "stderr"),
    [
        ("print('said', end='')", 0, "said", ""),
        ("import atexit; atexit.register(print, 'last'); raise SystemExit(3)", 3, "last\n", ""),
        ("raise SystemExit('why')", 1, "", "why\n"),
        ("raise ValueError('why')", 1, "", "ValueError: why\n"),
        ("import os; print('lost'); os._exit(4)", 4, "", ""),
        ("import os; os.kill(os.getpid(), 9)", -9, "", ""),
        ("raise KeyboardInterrupt", -2, "", "KeyboardInterrupt\n"),
        ("import sys; sys.stdout = open('/dev/full', 'w'); print('lost')", 120, "", "No space left on device\n"),
    ],
)
def test_it_ends_as_python_ends(source: str, code: int, stdout: str, stderr: str, quick: Start, tmp_path: Path) -> None:
    for ended in (quick("-c", source), start(sys.executable, "-c", source, folder=tmp_path)):
        assert (ended.returncode, ended.stdout) == (code, stdout)
        assert ended.stderr.endswith(stderr)


def test_torch_is_there_already_unless_a_variable_or_an_option_asks_for_a_true_start(quick: Start) -> None:
    always = set(IMPORTED) - {"typer._adapters"}  # an inner part of Typer
    code = f"import sys; print({always} <= sys.modules.keys())"
    assert quick("-c", code).stdout == "True\n"
    assert quick("-c", code, OMP_NUM_THREADS="3").stdout == "False\n"
    assert quick("-c", code, PYTHONWARNINGS="ignore").stdout == "False\n"
    assert quick("-W", "ignore", "-c", code).stdout == "False\n"


def test_a_script_imports_the_gradcheck_that_its_path_leads_to(quick: Start, tmp_path: Path) -> None:
    (tmp_path / "gradcheck_cli.py").write_text("raise ImportError('mine')")
    (tmp_path / "train.py").write_text("import gradcheck_cli")
    assert quick("train.py").stderr.endswith("ImportError: mine\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_it(number: int, tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [f"{quick_programs()}/python", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    fork = int(process.stdout.readline())
    assert fork != process.pid
    process.send_signal(number)
    assert process.wait(60) == -number
    assert process.stdout.read() == ""  # nobody holds it open: the fork has ended, too
    process.stdout.close()


def test_random_numbers_are_drawn_anew(quick: Start) -> None:
    code = "import random, numpy; print(random.random(), *numpy.random.rand(1))"
    assert len({number for _ in range(2) for number in quick("-c", code).stdout.split()}) == 4
