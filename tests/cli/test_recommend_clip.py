"""`gradcheck recommend-clip` as a process: what it takes, refuses and writes, with torch and without."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradcheck_cli import archive
from tests.cli.conftest import Gradcheck, assert_no_frame_of_ours, assert_refused
from tests.cli.test_profile import strict

Start = Callable[..., "subprocess.Popen[str]"]
Write = Callable[[str], None]

STREAM = """
    from tiny import *

    def stream():
        generator = torch.Generator().manual_seed(0)
        while True:
            x = torch.randn(8, 3, generator=generator)
            yield x, x.sum(1, keepdim=True) + torch.randn(8, 1, generator=generator)

    def build(wrong=False):
        model = net()
        return model, stream(), (lambda output, target: mse(output, target) / (not wrong)), sgd(model)
"""
NO_TORCH = """
import sys
from gradcheck_cli.cli import main
sys.argv = ["gradcheck", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.fixture
def norms(folder: Path) -> Path:
    """Light-tailed norms without drift."""
    values = np.exp(0.2 * np.random.default_rng(0).standard_normal(400))
    (folder / "norms.csv").write_text("step,train/grad_norm\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))
    return folder / "norms.csv"


@pytest.fixture
def recorded(gradcheck: Gradcheck, write: Write, folder: Path) -> Path:
    """A recording of an unclipped run."""
    write(STREAM)
    ended = gradcheck("profile", "train.py:build", "--steps", "200", "-q", "--fail-on", "never", "--save", "run.npz")
    assert ended.returncode == 0, ended.stderr
    return folder / "run.npz"


def test_a_run_and_what_is_written_of_it(gradcheck: Gradcheck, write: Write, folder: Path) -> None:
    write(STREAM)
    outputs = ["-o", "clip.json", "-o", "clip.txt", "--save", "run.npz"]
    ended = gradcheck("recommend-clip", "train.py:build", "--steps", "200", "-f", "json", *outputs)
    assert ended.returncode == 0, ended.stderr
    document = strict(ended.stdout)
    assert (document["command"], document["run"]["steps"], document["run"]["max_norm"]) == ("recommend-clip", 200, None)
    assert document["clip"]["verdict"] in ("clip", "not-needed")
    assert document["clip"]["max_norm"] > 0
    assert (folder / "clip.json").read_text() == ended.stdout
    assert "clip_grad_norm_(model.parameters(), max_norm=" in (folder / "clip.txt").read_text(encoding="utf-8")
    assert archive.load(folder / "run.npz").steps == 200


def test_300_steps_without_clipping_are_what_it_does_by_itself(
    gradcheck: Gradcheck, write: Write, folder: Path
) -> None:
    write(STREAM)
    (folder / "gradcheck.yaml").write_text("clip: 0.25\nformat: json\n")
    document = strict(gradcheck("recommend-clip", "train.py:build").stdout)
    series = document["series"]
    assert document["run"]["steps"] == 300
    assert series["grad_norm_clipped"] == series["grad_norm"]
    assert document["clip"]["judged"]["max_norm"] == 0.25, "what the configuration clips at is judged"


def test_options_reach_the_advice(gradcheck: Gradcheck, write: Write) -> None:
    write(STREAM)
    flags = ["--percentile", "90", "--horizon", "123", "--max-norm", "0.5", "--seed", "3", "--accumulate", "2"]
    document = strict(gradcheck("recommend-clip", "train.py:build", "--steps", "120", *flags, "-f", "json").stdout)
    clip, run = document["clip"], document["run"]
    assert (clip["percentile"], clip["horizon"], clip["judged"]["max_norm"]) == (90, 123, 0.5)
    assert (run["seed"], run["accumulate"], run["steps"]) == (3, 2, 120)


def test_verified_runs_are_beside_the_advice(gradcheck: Gradcheck, write: Write) -> None:
    write(STREAM)
    ended = gradcheck(
        "recommend-clip", "train.py:build", "--steps", "120", "--percentile", "90", "--verify-against", "1.0,zclip",
        "-f", "json",
    )  # fmt: skip
    runs = {run["name"]: run for run in strict(ended.stdout)["clip"]["verified"]}
    assert list(runs) == ["unclipped", "recommended", "max_norm 1", "zclip"]
    assert all(run["steps"] == 120 for run in runs.values())


def test_until_stable_ends_early(gradcheck: Gradcheck, write: Write) -> None:
    write(STREAM)
    ended = gradcheck("recommend-clip", "train.py:build", "--until-stable", "--percentile", "50", "-f", "json")
    run = strict(ended.stdout)["run"]
    assert (ended.returncode, run["ended"], run["steps_requested"]) == (0, "stable", 5000)
    assert run["steps"] < 5000
    assert run["steps"] % 25 == 0


def test_a_run_that_must_be_mended_first_fails(gradcheck: Gradcheck, write: Write) -> None:
    write(STREAM)
    ended = gradcheck("recommend-clip", "train.py:build", "--set", "wrong=true", "-f", "json")
    assert ended.returncode == 1
    assert strict(ended.stdout)["clip"]["verdict"] == "fix-first"
    never = gradcheck("recommend-clip", "train.py:build", "--set", "wrong=true", "--fail-on", "never")
    assert never.returncode == 0


def test_code_that_raises_is_exit_2_with_what_there_was(gradcheck: Gradcheck, write: Write) -> None:
    write("""
        from tiny import *
        def step(model, batch):
            if float(batch[0][0, 0]) == 3: raise ValueError("out of ink")
            return mse(model(batch[0]), batch[1])
        def build(): return {"model": net(), "dataloader": data(), "training_step": step}
    """)
    ended = gradcheck("recommend-clip", "train.py:build", "--verify", "-f", "json")
    assert ended.returncode == 2
    document = strict(ended.stdout)
    assert (document["run"]["steps"], document["clip"]["verified"]) == (2, [])
    assert "out of ink" in ended.stderr
    assert_no_frame_of_ours(ended.stderr)


# Without torch


def test_norms_from_another_tool(gradcheck: Gradcheck, norms: Path) -> None:
    ended = gradcheck("recommend-clip", "--norms", "norms.csv", "-f", "json", "-o", "again.npz")
    assert ended.returncode == 0, ended.stdout
    document = strict(ended.stdout)
    clip = document["clip"]
    assert (document["target"], clip["verdict"]) == ("norms.csv", "not-needed")
    assert clip["n"] == 400 - clip["warmup_excluded"]
    assert clip["interval"]["low"] <= np.exp(0.2 * 1.645) <= clip["interval"]["high"], "the true 95th percentile"
    assert any("'train/grad_norm'" in note for note in document["run"]["notes"])
    again = strict(gradcheck("recommend-clip", "again.npz", "-f", "json").stdout)
    assert again["clip"] == clip


def test_a_table_of_norms_on_the_terminal(gradcheck: Gradcheck, norms: Path) -> None:
    ended = gradcheck("recommend-clip", "--norms", "norms.csv")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "not needed" in ended.stdout
    assert not re.search(r"\bnan\b", ended.stdout, re.IGNORECASE), "what a list of norms lacks is left out"


def test_a_recording_gives_what_its_run_gives(gradcheck: Gradcheck, write: Write, recorded: Path) -> None:
    flags = ["--max-norm", "0.7", "-f", "json"]
    saved = strict(gradcheck("recommend-clip", "run.npz", *flags).stdout)
    live = strict(gradcheck("recommend-clip", "train.py:build", "--steps", "200", *flags).stdout)
    assert saved["clip"] == live["clip"]
    assert saved["target"] == "train.py:build"
    assert saved["run"]["notes"] == []


def test_a_recording_of_a_clipped_run_is_noted(gradcheck: Gradcheck, write: Write) -> None:
    write(STREAM)
    for clip, notes in (("0.3", 1), ("1e6", 0)):
        flags = ["--clip", clip, "--steps", "60", "-q", "--fail-on", "never", "--save", f"clip_{clip}.npz"]
        gradcheck("profile", "train.py:build", *flags)
        document = strict(gradcheck("recommend-clip", f"clip_{clip}.npz", "-f", "json").stdout)
        assert len([note for note in document["run"]["notes"] if "was clipped" in note]) == notes


@pytest.mark.parametrize("arguments", [["--norms", "norms.csv"], ["again.npz"], ["--help"]])
def test_torch_stays_out(gradcheck: Gradcheck, norms: Path, environment: dict[str, str], arguments: list[str]) -> None:
    gradcheck("recommend-clip", "--norms", "norms.csv", "-q", "-o", "again.npz")
    line = [sys.executable, "-c", NO_TORCH, "recommend-clip", *arguments]
    ended = subprocess.run(
        line, cwd=norms.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    assert ended.stderr.split()[-1] == "False"


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["neither TARGET nor --norms", "hint: "]),
        (["train.py:build", "--norms", "norms.csv"], ["both TARGET and --norms"]),
        (["run.npz", "--norms", "norms.csv"], ["both TARGET and --norms"]),
        (["--norms", "norms.csv", "--steps", "5"], ["nothing is run for norms.csv", "--steps", "hint: "]),
        (["run.npz", "--verify", "--device", "cpu"], ["nothing is run for run.npz", "--device, --verify"]),
        (["RUN.NPZ", "--verify-against", "1"], ["nothing is run", "--verify-against"]),
        (["run.npz", "--set", "a=1", "--eval", "--lr", "1"], ["--set", "--eval", "--lr"]),
        (
            ["train.py:build", "--percentile", "100"],
            ["--percentile must be a number above 0.1 and below 99.99, not 100"],
        ),
        (
            ["train.py:build", "--horizon", "0"],
            ["--horizon must be a whole number of at least 1 and at most 100000, not 0"],
        ),
        (["train.py:build", "--max-norm", "-1"], ["--max-norm must be a number above 0, not -1.0"]),
        (["train.py:build", "--verify-against", "sgd"], ["--verify-against must be", "zclip or autoclip"]),
        (["train.py:build", "--clip", "1"], ["No such option"]),
        (["train.py:build", "--select", "GC999"], ["there is no rule GC999"]),
        (["train.py:build", "-o", "no/where.json"], ["cannot write no/where.json"]),
        (["--norms", "missing.csv"], ["missing.csv: cannot read it: No such file", "hint: "]),
        (["--norms", "tiny.py"], ["tiny.py: no column is called grad_norm", "hint: "]),
        (["missing.npz"], ["cannot read missing.npz", "hint: "]),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_run(
    gradcheck: Gradcheck, write: Write, folder: Path, norms: Path, arguments: list[str], words: list[str]
) -> None:
    write("from pathlib import Path\nPath('imported').touch()\nfrom healthy import build\n")
    before = sorted(folder.rglob("*"))
    assert_refused(gradcheck("recommend-clip", *arguments), *words)
    assert sorted(folder.rglob("*")) == before, "nothing was run, and nothing written"


# A person at the terminal


def test_the_bar_shows_the_interval(start: Start, write: Write, environment: dict[str, str]) -> None:
    write(STREAM)
    environment.update(TERM="xterm", COLUMNS="160")
    ours, theirs = pty.openpty()
    flags = ["--until-stable", "--steps", "2000", "--percentile", "80"]
    process = start("recommend-clip", "train.py:build", *flags, stderr=theirs)
    os.close(theirs)
    received = b""
    try:
        while chunk := os.read(ours, 4096):
            received += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(ours)
    process.communicate(timeout=60)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received.decode())
    assert re.search(r"\d+/2000", text)
    assert re.search(r"p80 ", text)


def test_ctrl_c_reports_what_was_measured(start: Start, write: Write, folder: Path) -> None:
    write(
        STREAM
        + """
    import pathlib, time

    def slow():
        for number, batch in enumerate(stream()):
            if number == 120:
                pathlib.Path("here").touch()
            if number > 120:
                time.sleep(0.05)
            yield batch

    def build_slow(): return (build()[0], slow(), *build()[2:])
    """
    )
    process = start("recommend-clip", "train.py:build_slow", "--steps", "100000", "--verify", "-f", "json")
    try:
        while not (folder / "here").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    document = json.loads(stdout)
    assert document["run"]["ended"] == "interrupted"
    assert document["run"]["steps"] >= 120
    assert document["clip"]["verified"] == []
    assert_no_frame_of_ours(stderr)
