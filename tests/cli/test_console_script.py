"""The `gradcheck` that pip installs, in a Python of its own, once for each command: other tests have one forked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gradcheck_cli import archive
from gradcheck_cli.cli import app
from tests.diagnose.recordings import make_recording

LOOP = """
from healthy import *
model, batches, loss_fn, optimizer = build()
for step, (x, y) in enumerate(list(batches)[:3]):
    loss = loss_fn(model(x), y) / (step != {zero_at})
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
LINES: dict[str, tuple[list[str], int, str]] = {
    "profile": (["sick.py:build", "--steps", "2"], 1, "GC106"),
    "recommend-clip": (["healthy.py:build", "--steps", "20"], 0, "too few steps"),
    "nan-trace": (["fault.py"], 1, "aten::div"),
    "audit": (["train.py"], 0, "train.py"),
    "report": (["run.npz"], 1, "GC106"),
    "rules": (["GC106"], 0, "# GC106 parameter-not-optimized"),
    "init": (["--force"], 0, ""),
    "schema": ([], 0, "json-schema.org"),
    "doctor": ([], 0, "right"),
}


def test_every_command_is_here() -> None:
    assert set(LINES) == {command.name for command in app.registered_commands}


@pytest.mark.parametrize("name", LINES)
def test_it_starts_prints_and_ends(name: str, folder: Path, environment: dict[str, str]) -> None:
    (folder / "train.py").write_text(LOOP.format(zero_at=-1))
    (folder / "fault.py").write_text(LOOP.format(zero_at=1))
    (folder / "run.npz").write_bytes(archive.dumps(make_recording(not_optimized=["fc2.weight"])))
    arguments, code, word = LINES[name]
    line = [str(Path(sys.executable).parent / "gradcheck"), name, *arguments]
    ended = subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert word in ended.stdout
