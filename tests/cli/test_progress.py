"""The progress bar: on a terminal only, and not when quiet."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


def screen(start: Callable[..., subprocess.Popen[str]], *arguments: str) -> str:
    """What a terminal on stderr is sent."""
    ours, theirs = pty.openpty()
    process = start("profile", "healthy.py:build", "--steps", "30", "--device", "cpu", *arguments, stderr=theirs)
    os.close(theirs)
    received = b""
    try:
        while chunk := os.read(ours, 4096):
            received += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0, received
    assert "healthy.py:build" in stdout
    assert "\x1b" not in stdout
    return received.decode()


def test_a_terminal_is_shown_steps_loss_and_gradient_norm(
    start: Callable[..., subprocess.Popen[str]], environment: dict[str, str], folder: Path
) -> None:
    environment.update(TERM="xterm", COLUMNS="100")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen(start))
    assert re.search(r"\d+/30", text)
    assert re.search(r"loss \d", text)
    assert re.search(r"gradient norm \d", text)


@pytest.mark.parametrize("option", ["-q"])
def test_a_quiet_run_shows_nothing(
    start: Callable[..., subprocess.Popen[str]], environment: dict[str, str], option: str
) -> None:
    environment.update(TERM="xterm", COLUMNS="100")
    assert screen(start, option) == ""
