"""nan-trace as a process: exit codes, the user's errors and Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Gradcheck, assert_no_frame_of_ours
from tests.cli.test_interrupt import Start, interrupt

Write = Callable[[str], None]

GLOBAL = """
    from tiny import *
    calls = (factor for factor in [1.0, float("nan"), *[1.0] * 1000])

    def step(model, batch): return mse(model(batch[0]), batch[1]) * next(calls)

    def build(): return {"model": net(), "dataloader": data(), "training_step": step}
"""
RAISES = """
    from tiny import *

    def step(model, batch):
        if float(batch[0][0, 0]) == 3:
            raise RuntimeError("no space left")
        return mse(model(batch[0]), batch[1])

    def build(): return {"model": net(), "dataloader": data(), "training_step": step}
"""
SLOW = """
    import pathlib, time
    from tiny import *

    def step(model, batch):
        if float(batch[0][0, 0]) == 3:
            pathlib.Path("here").touch()
            time.sleep(%s)
        return mse(model(batch[0]), batch[1])

    def build(): return {"model": net(), "dataloader": data(), "training_step": step}
"""


def test_what_cannot_be_run_again_is_reported_as_not_reproduced(gradcheck: Gradcheck, write: Write) -> None:
    write(GLOBAL)
    ended = gradcheck("nan-trace", "train.py:build", "--steps", "9", "-f", "json")
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    assert document["origins"] == []
    assert "generators" in ended.stdout
    assert_no_frame_of_ours(ended.stderr)


def test_the_users_error_is_no_finding(gradcheck: Gradcheck, write: Write) -> None:
    write(RAISES)
    ended = gradcheck("nan-trace", "train.py:build", "--steps", "9", "-f", "json")
    assert ended.returncode == 2
    assert "training failed in step 2, batch 2: RuntimeError: no space left" in ended.stderr
    assert 'raise RuntimeError("no space left")' in ended.stderr
    assert json.loads(ended.stdout)["origins"] == []
    assert_no_frame_of_ours(ended.stderr)


def test_an_interrupt_gives_the_report_of_what_was_watched(start: Start, write: Write, folder: Path) -> None:
    write(SLOW % "0.2")
    process = start("nan-trace", "train.py:build", "--steps", "100000", "-f", "json")
    ended = interrupt(process, folder / "here")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["run"]["ended"]) == (0, "interrupted")
    assert 3 <= document["run"]["steps"] < 100000
    assert_no_frame_of_ours(ended.stderr)


def test_a_second_interrupt_ends_a_step_that_hangs(start: Start, write: Write, folder: Path) -> None:
    write(SLOW % "600")
    ended = interrupt(start("nan-trace", "train.py:build", "-f", "json"), folder / "here", times=2)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["run"]["ended"], document["run"]["steps"]) == (0, "interrupted", 2)
    assert_no_frame_of_ours(ended.stderr)
