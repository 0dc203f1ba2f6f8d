"""--save-repro: a folder that runs the failing step again in another process, without the data."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Report
from tests.nan_corpus.corpus import CASES, Case
from tests.nan_corpus.plain_loop import load_corpus
from tests.zygote import quick_programs

load_corpus()

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# One case of each: what fails, and what it takes to fail again.
NAMES = (
    "mask_of_1e9_cast_to_half",  # fp16 with a scaler
    "gain_left_uninitialised",  # parameter
    "two_backward_calls",  # an optimizer of the training step's own
    "sharpened_guess_of_an_averaged_teacher",  # a model of the training step's own
    *(next(c.name for c in CASES if c.phase == phase) for phase in ("forward", "loss", "backward")),
    *(next(c.name for c in CASES if c.phase == phase) for phase in ("optimizer", "data")),
    next(c.name for c in CASES if c.micro_batch),
    next(c.name for c in CASES if c.error),
)
CHOSEN = [next(case for case in CASES if case.name == name) for name in dict.fromkeys(NAMES)]

# Each line of log.txt says everything that a step depends on.
TRAINING = """
import random
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import nn

Pair = namedtuple("Pair", "left right")


class Split(Enum):
    TRAIN = "train"


@dataclass(frozen=True)
class Batch:
    x: torch.Tensor
    pair: Pair
    split: Split
    weights: np.ndarray


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.norm = nn.Linear(3, width), nn.BatchNorm1d(width)
        self.last, self.dropout = nn.Linear(width, 1), nn.Dropout()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.seen += x.mean()
        return self.last(self.dropout(torch.relu(self.norm(self.first(x)))))


class Once:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        with open("iterated", "x"):  # raises the second time
            return iter(self.batches)


def step_with(optimizer, depend, in_loss):
    def training_step(model, batch):
        loss = (model(batch.x + batch.pair.left) ** 2).mean() * float(batch.weights.sum())
        loss = loss + 0.1 * torch.rand(()) + np.random.rand() + random.random()
        state = [float(v["exp_avg"].double().sum()) for v in optimizer.state.values() if "exp_avg" in v]
        with open("log.txt", "a") as log:
            log.write(f"{float(loss)!r} {model.calls} {float(model.seen)!r} {model.training} {state} {batch.split}\\n")
        if in_loss and depend(model):
            return loss * torch.log(batch.x[0, 0] * 0)
        return loss + torch.sqrt(batch.x[0, 0] * 0 * model.last.bias).sum() if depend(model) else loss

    return training_step


def build(width=4, in_loss=False):
    model = Net(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pairs = Pair(torch.randn(6, 3), 1)
    data = [Batch(torch.randn(6, 3), pairs, Split.TRAIN, np.arange(3) / 7) for _ in range(20)]
    step = step_with(optimizer, lambda model: model.calls >= 6, in_loss)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return {"model": model, "dataloader": Once(data), "training_step": step, "optimizer": optimizer,
            "scheduler": schedule}


def local():
    class Sample:
        def __init__(self, x, source):
            self.x, self.source = x, source

    model = nn.Linear(2, 1)
    step = lambda model, sample: torch.sqrt(model(sample.x) * 0).sum()
    return {"model": model, "dataloader": [Sample(torch.ones(4, 2), open(__file__))], "training_step": step}


def healthy():
    model = nn.Linear(2, 1)
    return model, [(torch.randn(4, 2), torch.randn(4, 1))], nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory."""
    (tmp_path / "train.py").write_text(TRAINING)
    (tmp_path / "gradcheck_cli.py").write_text("raise ImportError('repro.py needs no gradcheck')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.delitem(sys.modules, "train", raising=False)
    return tmp_path


def trace(target: str, folder: Path, **settings: Any) -> Report:
    report, error = pipeline.nan_trace(target, replace(Settings(steps=8), **settings), save_repro=folder)
    assert error is None
    return report


def run_again(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [f"{quick_programs()}/python", str(folder / "repro.py")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is written for each of the chosen cases; its repro.py has run, and left a log."""
    root = tmp_path_factory.mktemp("repro")
    for case in CHOSEN:
        trace(case.target, root / case.name, **case.settings)
        ended = run_again(root / case.name)
        log = root / case.name / "repro.py.log"
        log.write_text(f"{ended.stdout}{ended.stderr}\nexit {ended.returncode}\n")
    return {case.name: root / case.name for case in CHOSEN}


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_reproduces_what_was_found(case: Case, folders: dict[str, Path]) -> None:
    log = (folders[case.name] / "repro.py.log").read_text()
    assert f"step {case.step} fails as gradcheck found it" in log
    assert log.splitlines()[-1] == "exit 1"
    found = torch.load(folders[case.name] / "step.pt", weights_only=True)["found"]
    assert all(f"not finite: {name}," in log for name in found)


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_the_readme_says_what_where_and_why(case: Case, folders: dict[str, Path]) -> None:
    readme = (folders[case.name] / "README.md").read_text()
    assert f"{case.file.name}:{case.lines[0]}" in readme
    assert f"gradcheck rules {case.cause}" in readme
    assert f"step {case.step}" in readme
    assert torch.__version__ in readme
    assert "python repro.py" in readme


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate": 2, "clip": 0.5, "set": {"width": 5}},
        {"precision": "fp16", "seed": 3, "set": {"in_loss": True}},
        {"eval": True, "optimizer": "adamw", "lr": 0.02},
    ],
    ids=["plain", "accumulate-clip-set", "fp16", "eval-optimizer"],
)
def test_runs_the_same_numbers_without_the_data(project: Path, settings: dict[str, Any]) -> None:
    """The loader raises when it is iterated once more; weights, optimizer, counters and draws are those of the run."""
    trace("train.py:build", project / "bug", **settings)
    lines = (project / "log.txt").read_text().splitlines()
    ended = run_again(project / "bug")
    assert ended.returncode == 1, ended.stderr
    assert "fails as gradcheck found it" in ended.stdout
    again = (project / "log.txt").read_text().splitlines()[len(lines) :]
    assert len(again) == settings.get("accumulate", 1)
    assert set(again) <= set(lines)


def test_is_finite_once_the_code_is_mended(project: Path) -> None:
    trace("train.py:build", project / "bug")
    (project / "train.py").write_text(TRAINING.replace("* 0 * model.last.bias)", "* 0 * model.last.bias + 1e-6)"))
    ended = run_again(project / "bug")
    assert ended.returncode == 0, ended.stderr
    assert "everything is finite in step 5" in ended.stdout


def test_says_when_the_step_cannot_be_run(project: Path) -> None:
    trace("train.py:build", project / "bug")
    (project / "train.py").unlink()
    ended = run_again(project / "bug")
    assert ended.returncode == 2
    assert "train.py" in ended.stderr


def test_everything_is_read_without_running_code(project: Path) -> None:
    report = trace("train.py:build", project / "bug", precision="fp16", set={"in_loss": True})
    assert report.trace is not None
    saved = torch.load(project / "bug" / "step.pt", weights_only=True)
    assert saved["step"] == 5
    assert saved["settings"]["precision"] == "fp16"
    assert saved["scaler"]["scale"] == 65536 / 2**report.trace.skipped
    assert {"first.weight", "norm.bias"} <= saved["modules"]["model"]["parameters"].keys()
    assert {"norm.running_mean", "seen"} <= saved["modules"]["model"]["buffers"].keys()
    (batch,) = saved["batches"]
    assert batch["data"]["attributes"]["x"].shape == (6, 3)
    assert saved["optimizers"][""]["state"][0]["exp_avg"].shape == (4, 3)


def test_says_what_could_not_be_saved(project: Path) -> None:
    report = trace("train.py:local", project / "bug")
    readme = (project / "bug" / "README.md").read_text()
    for text in (readme, "\n".join(report.run.notes)):
        assert "batches[0].source" in text
        assert "train.local.<locals>.Sample" in text
    assert "batches[0].x" not in readme
    ended = run_again(project / "bug")  # a stand-in has the same fields
    assert ended.returncode == 1, ended.stderr


def test_refuses_a_folder_with_something_in_it_before_the_run(project: Path) -> None:
    (project / "bug").mkdir()
    (project / "bug" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        pipeline.nan_trace("train.py:build", Settings(steps=8), save_repro=project / "bug")
    assert not (project / "iterated").exists()
    assert [path.name for path in (project / "bug").iterdir()] == ["notes.txt"]


def test_fills_an_empty_folder(project: Path) -> None:
    (project / "bug").mkdir()
    trace("train.py:local", project / "bug")
    assert {path.name for path in (project / "bug").iterdir()} == {"step.pt", "repro.py", "README.md"}


def test_leaves_nothing_half_written_and_keeps_the_finding(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    report, error = pipeline.nan_trace("train.py:healthy", Settings(steps=2), save_repro=project / "healthy")
    assert error is None
    report, error = pipeline.nan_trace("train.py:build", Settings(steps=8), save_repro=project / "bug")
    assert isinstance(error, OutputError)
    assert "No space left" in error.message
    assert report.exit_code == 2
    assert report.trace is not None
    assert report.trace.origins
    assert not [path.name for path in project.iterdir() if "bug" in path.name or path.name.startswith(".gradcheck")]


def test_writes_nothing_for_a_clean_run_and_says_so(project: Path) -> None:
    report = trace("train.py:healthy", project / "bug")
    assert not (project / "bug").exists()
    assert any("nothing failed" in note for note in report.run.notes)
