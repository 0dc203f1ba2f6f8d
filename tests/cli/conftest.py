"""Run gradcheck as its users do: as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drive.training import TINY
from tests.zygote import quick_programs

ROOT = Path(__file__).parents[2]
HEALTHY = "from tiny import *\ndef build():\n    model = net()\n    return model, data(), mse, sgd(model)\n"
SICK = HEALTHY.replace("sgd(model)", "sgd(model[0])")

Gradcheck = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's directory: `tiny.py` and some entrypoints that use it."""
    for name, source in {"tiny": TINY, "healthy": HEALTHY, "sick": SICK}.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """Without what would colour or size the output, or add to the summary of the CI job that runs these tests."""
    changing = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_STEP_SUMMARY")
    kept = {name: value for name, value in os.environ.items() if name not in changing}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def start(folder: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a gradcheck that takes Ctrl-C, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def begin(*arguments: str, **streams: object) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen(
            [f"{quick_programs()}/gradcheck", *arguments],
            cwd=folder,
            env=environment,
            text=True,
            **pipes,  # type: ignore[call-overload]
        )

    yield begin
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def gradcheck(start: Callable[..., subprocess.Popen[str]]) -> Gradcheck:
    """Run gradcheck to its end."""

    def run(*arguments: str, **streams: object) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, **streams)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    return run


@pytest.fixture
def write(folder: Path) -> Callable[[str], None]:
    """Write the user's `train.py`."""

    def save(source: str) -> None:
        (folder / "train.py").write_text(textwrap.dedent(source))

    return save


def assert_refused(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, nothing on stdout, and a message with these words that shows nothing of gradcheck's inside."""
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    for word in words:
        assert word in ended.stderr
    assert_no_frame_of_ours(ended.stderr)


def assert_no_frame_of_ours(stderr: str) -> None:
    """No traceback but the user's."""
    assert str(ROOT / "gradcheck_cli") not in stderr
    assert "a bug of gradcheck's" not in stderr
    assert "site-packages" not in stderr
