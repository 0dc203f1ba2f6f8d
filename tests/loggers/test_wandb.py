"""Weights & Biases, offline: a run of our own, and the run of a script that has one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.loggers.readers import read_history
from tests.zygote import quick_programs

SCRIPT = """
import hashlib, pathlib, random, sys
import numpy as np
import torch
from torch import nn

random.seed(0), np.random.seed(0), torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
{begin}
for step in range(6):
    x = torch.randn(8, 4)
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    print("step", step)
    {log}
weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
states = (weights, torch.get_rng_state().numpy().tobytes(), np.random.get_state(), random.getstate())
pathlib.Path("state").write_text(hashlib.sha256(repr(states).encode()).hexdigest())
"""
LATE = "import wandb; run = wandb.init(project='theirs') if step == 3 else None; wandb.run and wandb.log({'a': step})"


def run(folder: Path, *arguments: str, begin: str = "", log: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script with Python's `arguments` before its name."""
    (folder / "train.py").write_text(SCRIPT.format(begin=begin, log=log))
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    command = [f"{quick_programs()}/python", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


def profile(folder: Path, begin: str = "", log: str = "") -> dict[str, Any]:
    """The JSON report of the script under gradcheck; nothing else may be on stdout."""
    arguments = (
        "-m",
        "gradcheck_cli",
        "profile",
        "train.py",
        "--log",
        "wandb:ours",
        "--probe-every",
        "0",
        "-f",
        "json",
    )
    report: dict[str, Any] = json.loads(run(folder, *arguments, begin=begin, log=log).stdout)
    return report


def test_a_run_of_our_own_has_every_step_and_draws_no_random_number(tmp_path: Path) -> None:
    run(tmp_path, "train.py")
    bare = (tmp_path / "state").read_text()
    report = profile(tmp_path)
    rows = read_history(tmp_path / "wandb")
    assert [row["gradcheck/model/step"] for row in rows] == list(range(6))
    for name in ("loss", "grad_norm"):
        assert [row[f"gradcheck/model/{name}"] for row in rows] == report["series"][name]
    assert {f"gradcheck/model/layer/grad_rms/{layer}" for layer in "02"} <= rows[0].keys()
    assert any("logged to wandb" in note for note in report["run"]["notes"])
    assert (tmp_path / "state").read_text() == bare


def test_a_script_keeps_its_run_and_the_steps_of_its_rows(tmp_path: Path) -> None:
    """A row that we ended would make wandb refuse the script's own, whose step is given."""
    begin = "import wandb; wandb.init(project='theirs')"
    report = profile(tmp_path, begin, "wandb.log({'a': step}, step=step); step == 5 and wandb.finish()")
    rows = read_history(tmp_path / "wandb")  # there is one run only
    assert [(row["_step"], row["a"]) for row in rows] == [(step, step) for step in range(6)]
    told = {row["gradcheck/model/step"]: row for row in rows if "gradcheck/model/step" in row}
    assert len(told) > 3
    assert max(told) == 5
    for step, row in told.items():
        assert row["gradcheck/model/grad_norm"] == report["series"]["grad_norm"][step]


def test_our_run_makes_way_for_one_that_the_script_opens_later(tmp_path: Path) -> None:
    profile(tmp_path, log=LATE)
    ours, theirs = sorted((tmp_path / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_ctime)
    for number, folder in enumerate((ours, theirs)):
        (tmp_path / str(number)).mkdir()
        folder.rename(tmp_path / str(number) / folder.name)
    rows = read_history(tmp_path / "0")
    assert [row["gradcheck/model/step"] for row in rows] == [0, 1, 2, 3]
    assert [row["a"] for row in read_history(tmp_path / "1")] == [3, 4, 5]
