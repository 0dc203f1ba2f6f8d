"""Run the scripts as their users do, and under gradcheck, in a folder of their own."""

from __future__ import annotations

import os
import random
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradcheck_cli.targets import Script
from tests.kinds.kinds import BAD_STEP, SCRIPTS, Kind
from tests.zygote import quick_programs

End = dict[str, Any]
"""What a script saves when it ends: its log, the models' states, random states."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's directory, with all scripts in it."""
    return shutil.copytree(SCRIPTS, tmp_path_factory.mktemp("kinds") / "scripts")


@pytest.fixture(autouse=True)
def working_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In that directory; what frameworks leave in the environment is taken away again."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", f"{quick_programs()}/python")
    begin()
    known = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(known)


@pytest.fixture(scope="module")
def bare(folder: Path) -> Callable[[Kind], End]:
    """The end of a script that ran without gradcheck, once."""

    @cache
    def run(kind: Kind) -> End:
        out = folder / f"{kind}.bare"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"{kind}.py", f"--out={out}"])
            patch.syspath_prepend(str(folder))
            begin()
            runpy.run_path(f"{kind}.py", run_name="__main__")
        return end_of(out)

    return run


def begin() -> None:
    """Like a new process; but scripts that do not seed all generators begin with the same numbers each time."""
    torch._dynamo.reset()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def script_of(kind: Kind, out: Path) -> Script:
    return Script(f"{kind}.py", (f"--out={out}",))


def sick_script_of(kind: Kind, out: Path) -> Script:
    """The script with its fault."""
    return Script(f"{kind}.py", (f"--out={out}", f"--bad_step={BAD_STEP}"))


def end_of(out: Path) -> End:
    saved: End = torch.load(out)
    return saved


def assert_same_end(out: Path, other: End) -> None:
    """Parameters, buffers, random states and the log are the same, bit for bit."""
    saved = end_of(out)
    assert saved["rows"] == other["rows"]
    for state, expected in zip(saved["states"], other["states"], strict=True):
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    (in_torch, *others), (expected_in_torch, *expected_others) = saved["random"], other["random"]
    assert torch.equal(in_torch, expected_in_torch)
    assert others == expected_others
