"""Ctrl-C on a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import assert_no_frame_of_ours, assert_refused

Start = Callable[..., "subprocess.Popen[str]"]

SLOW = """
    import pathlib, time
    from tiny import *

    def step(model, batch):
        if float(batch[0][0, 0]) == 3:
            pathlib.Path("here").touch()
            {then}
        return mse(model(batch[0]), batch[1])

    def build(): return {{"model": net(), "dataloader": data(), "training_step": step}}
"""


def interrupt(process: subprocess.Popen[str], sign: Path, times: int = 1) -> subprocess.CompletedProcess[str]:
    """Send SIGINT as soon as the process has left its sign, and wait for the end."""
    try:
        while not sign.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        for _ in range(times):
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.5)  # two signals at once would be one
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def test_the_first_ends_the_run_after_its_step(start: Start, write: Callable[[str], None], folder: Path) -> None:
    write(SLOW.format(then="time.sleep(0.2)"))
    process = start("profile", "train.py:build", "--steps", "100000", "-f", "json", "-o", "run.txt")
    ended = interrupt(process, folder / "here")
    assert ended.returncode == 0
    document = json.loads(ended.stdout)
    assert document["run"]["ended"] == "interrupted"
    assert 3 <= document["run"]["steps"] < 100000
    assert "interrupted" in (folder / "run.txt").read_text(encoding="utf-8")
    assert_no_frame_of_ours(ended.stderr)


def test_the_second_ends_a_step_that_hangs(start: Start, write: Callable[[str], None], folder: Path) -> None:
    write(SLOW.format(then="time.sleep(600)"))
    ended = interrupt(start("profile", "train.py:build", "-f", "json"), folder / "here", times=2)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["run"]["steps"] == 2
    assert_no_frame_of_ours(ended.stderr)


def test_during_the_import_there_is_nothing_to_report(start: Start, write: Callable[[str], None], folder: Path) -> None:
    write("import pathlib, time\npathlib.Path('here').touch()\ntime.sleep(600)\n")
    ended = interrupt(start("profile", "train.py:build"), folder / "here")
    assert_refused(ended, "error: interrupted")
