"""Ranks as users start them: by --nproc, and by torchrun."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GRADCHECK = ("-m", "gradcheck_cli")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", *GRADCHECK)
HOST = socket.gethostname()
TARGET = """
import os, signal, time
from pathlib import Path
import torch
from torch import nn

class Trouble:
    def __init__(self, trouble): self.trouble, self.steps, self.rank = trouble, 0, os.environ["RANK"]

    def __call__(self, model, batch):
        self.steps += 1
        print("the user's own words")
        if self.trouble == "sleep":
            Path(f"here-{self.rank}-{os.getpid()}").touch()
            time.sleep(0.2)
        elif self.rank == "1" and self.steps == 3 and self.trouble == "raise":
            raise ValueError("a line of the user's")
        elif self.rank == "1" and self.steps == 3 and self.trouble:
            os.kill(os.getpid(), getattr(signal, self.trouble))
        return nn.functional.mse_loss(model(batch), batch.sum(1, keepdim=True))

def build(trouble="", sick=False):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model[0].parameters() if sick else model.parameters(), lr=0.01)
    data = list(torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(0)))
    return {"model": model, "dataloader": data, "training_step": Trouble(trouble), "optimizer": optimizer}
"""

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a Python in a folder with the target; what is left of it afterwards is ended."""
    (tmp_path / "ranks.py").write_text(TARGET)
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start: Start) -> Run:
    def to_the_end(*arguments: str) -> subprocess.CompletedProcess[str]:
        process = start(*arguments)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    return to_the_end


def profile(*options: str) -> tuple[str, ...]:
    return ("profile", "ranks.py:build", "--steps", "6", *options)


def assert_failed(ended: subprocess.CompletedProcess[str], error: str) -> None:
    """Exit code 2 and this error, once, and nothing of gradcheck's or torch's inside."""
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("error: ") == 1
    assert f"error: {error}" in ended.stderr
    assert "site-packages" not in ended.stderr
    assert str(ROOT / "gradcheck_cli") not in ended.stderr


def test_a_healthy_run_gives_one_document(run: Run) -> None:
    ended = run(*GRADCHECK, *profile("--nproc", "2", "-f", "json"))
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["exit_code"], document["error"]) == (0, 0, None)
    assert document["run"]["steps"] == 6
    assert ended.stderr.count("the user's own words") == 12


def test_findings_of_ranks_started_for_each_of_several_targets(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gradcheck.yaml").write_text(
        "steps: 4\nnproc: 2\ntargets: {sick: {target: 'ranks.py:build', set: {sick: true}}}\n"
    )
    ended = run(*GRADCHECK, "profile", "--all", "-f", "json")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["exit_code"], document["run"]["steps"]) == (1, 1, 4)


def test_torchrun_hears_that_findings_are_no_crash(run: Run) -> None:
    ended = run(*TORCHRUN, *profile("--set", "sick=true", "-f", "json"))
    document = json.loads(ended.stdout)  # there is one
    assert (ended.returncode, document["exit_code"], document["error"]) == (1, 1, None)
    assert "traceback : gradcheck found 1 error (exit code 1): not a crash, see the report above" in ended.stderr
    assert "NO_OTHER_FAILURES" in ended.stderr


def test_below_torchrun_an_error_of_all_ranks_is_printed_once(run: Run) -> None:
    ended = run(*TORCHRUN, "profile", "missing.py:build")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("error: rank ") == 1
    assert ended.stderr.count(f" of 2 on {HOST}: there is no file missing.py\nhint: ") == 1


def test_the_rank_that_raises_is_named_with_its_line(run: Run) -> None:
    ended = run(*GRADCHECK, *profile("--nproc", "2", "--set", "trouble=raise"))
    assert_failed(ended, f"rank 1 of 2 on {HOST}: training failed in step 2, ")
    assert ended.stderr.count('raise ValueError("a line of the user\'s")') == 1


def test_the_rank_that_is_killed_is_named_with_its_signal(run: Run) -> None:
    ended = run(*GRADCHECK, *profile("--nproc", "2", "--set", "trouble=SIGKILL"))
    assert_failed(ended, f"rank 1 of 2 on {HOST}: its process was ended by SIGKILL")


def test_a_rank_that_does_not_answer_is_not_waited_for_longer_than_allowed(run: Run) -> None:
    ended = run(*GRADCHECK, *profile("--nproc", "2", "--timeout", "3", "--set", "trouble=SIGSTOP"))
    assert_failed(ended, "rank 1 of 2 does not answer.")


def test_an_interrupt_ends_all_ranks_after_their_step(start: Start, tmp_path: Path) -> None:
    arguments = ("--nproc", "2", "--set", "trouble=sleep", "--steps", "100000", "-f", "json")
    process = start(*GRADCHECK, "profile", "ranks.py:build", *arguments)
    while len(ranks := [int(path.name.split("-")[2]) for path in tmp_path.glob("here-*")]) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    document = json.loads(stdout)
    assert (process.returncode, document["run"]["ended"]) == (0, "interrupted")
    assert 1 <= document["run"]["steps"] < 100000
    assert "Traceback" not in stderr
    for rank in ranks:
        with pytest.raises(ProcessLookupError):
            os.kill(rank, 0)
