"""Whole scripts under gradcheck, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Gradcheck, assert_no_frame_of_ours, assert_refused
from tests.cli.test_interrupt import interrupt

Start = Callable[..., "subprocess.Popen[str]"]
Write = Callable[[str], None]

SCRIPT = """
    import atexit, pathlib, sys, time, torch
    from tiny import *

    def main(steps, fail_at=-1):
        atexit.register(pathlib.Path("exit").touch)
        torch.manual_seed(0)
        model = net()
        optimizer = sgd(model)
        try:
            for step in range(steps):
                for inputs, targets in data(1):
                    optimizer.zero_grad()
                    loss = mse(model(inputs), targets)
                    if step == fail_at:
                        raise ValueError("out of data")
                    loss.backward()
                    optimizer.step()
                print("step", step, flush=True)
                if step == 3:
                    pathlib.Path("here").touch()
                    time.sleep({pause})
            torch.save(model.state_dict(), "model.pt")
        finally:
            pathlib.Path("finally").touch()

    if __name__ == "__main__":
        main(*map(int, sys.argv[1:]))
"""


@pytest.fixture
def script(write: Write) -> None:
    """`train.py STEPS [FAIL_AT]`."""
    write(SCRIPT.format(pause=0))


def left(folder: Path) -> set[str]:
    """Which of its files the script has written."""
    return {name for name in ("model.pt", "finally", "exit") if (folder / name).exists()}


@pytest.mark.usefixtures("script")
def test_stdout_is_one_document_and_the_script_runs_to_its_end(gradcheck: Gradcheck, folder: Path) -> None:
    ended = gradcheck("profile", "train.py", "-f", "json", "--", "60")
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["target"] == "train.py 60"
    assert document["run"]["steps"] == 60
    assert document["run"]["ended"] == "completed"
    assert document["others"] == []
    assert [layer["name"] for layer in document["layers"]] == ["0", "2"]
    assert ended.stderr.splitlines() == [f"step {step}" for step in range(60)]
    assert left(folder) == {"model.pt", "finally", "exit"}


@pytest.mark.usefixtures("script")
def test_steps_stops_it_and_lets_it_clean_up(gradcheck: Gradcheck, folder: Path) -> None:
    ended = gradcheck("profile", "-m", "train", "--steps", "7", "-f", "json", "--", "60")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["run"]["steps"] == 7
    assert ended.stderr.splitlines() == [f"step {step}" for step in range(6)]
    assert left(folder) == {"finally", "exit"}


@pytest.mark.usefixtures("script")
def test_one_that_fails_is_reported_up_to_there(gradcheck: Gradcheck, folder: Path) -> None:
    ended = gradcheck("profile", "train.py", "-f", "json", "--", "60", "5")
    assert ended.returncode == 2
    document = json.loads(ended.stdout)
    assert document["run"]["steps"] == 5
    assert document["run"]["ended"] == "failed"
    assert document["exit_code"] == 2
    assert "train.py 60 5 failed: ValueError: out of data" in ended.stderr
    assert 'train.py", line' in ended.stderr
    assert_no_frame_of_ours(ended.stderr)
    assert left(folder) == {"finally", "exit"}


@pytest.mark.usefixtures("script")
def test_a_clip_is_recommended_for_it(gradcheck: Gradcheck) -> None:
    ended = gradcheck("recommend-clip", "train.py", "-f", "json", "--", "60")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert len(document["series"]["grad_norm"]) == 60
    assert document["clip"]


STEADY = """
    import torch
    from tiny import *

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    while True:
        optimizer.zero_grad()
        (model(torch.ones(8, 3)).mean() * (1 + torch.rand(()) / 10)).backward()
        optimizer.step()
"""


def test_one_without_an_end_is_ended_when_its_clip_is_known(gradcheck: Gradcheck, write: Write) -> None:
    write(STEADY)
    ended = gradcheck("recommend-clip", "train.py", "--until-stable", "-f", "json")
    assert ended.returncode == 0, ended.stderr
    run = json.loads(ended.stdout)["run"]
    assert (run["ended"], run["steps"] % 25) == ("stable", 0)


@pytest.mark.usefixtures("script")
def test_what_takes_a_callable_is_refused_with_what_to_do_instead(gradcheck: Gradcheck) -> None:
    refused = gradcheck("recommend-clip", "train.py", "--verify", "--verify-against", "1.0", "--", "60")
    words = "--verify and --verify-against would train again with other clipping, and train.py is run as it is"
    assert_refused(refused, words, "let it clip at the value and run this again", "train.py:build")
    refused = gradcheck("nan-trace", "train.py", "--save-repro", "repro", "--", "60")
    assert_refused(refused, "can't tell which part of train.py that is", "leave it out", "train.py:build")


def test_ctrl_c_reports_what_there_is(start: Start, write: Write, folder: Path) -> None:
    write(SCRIPT.format(pause=600))
    ended = interrupt(start("profile", "train.py", "-f", "json", "--", "60"), folder / "here")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["run"]["ended"] == "interrupted"
    assert document["run"]["steps"] == 4
    assert left(folder) == {"finally", "exit"}
    assert_no_frame_of_ours(ended.stderr)


LIGHTNING = """
    import pathlib, time, torch, lightning
    from tiny import net

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, index):
            if self.global_step == 4:
                pathlib.Path("here").touch()
                time.sleep(600)
            return self.net(torch.randn(4, 3)).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(max_epochs=9, accelerator="cpu", **quiet).fit(Module(), [0] * 9)
"""


def test_ctrl_c_that_lightning_makes_an_exit_of(start: Start, write: Write, folder: Path) -> None:
    pytest.importorskip("lightning")
    write(LIGHTNING)
    ended = interrupt(start("profile", "train.py", "-f", "json"), folder / "here")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["run"]["ended"] == "interrupted"
    assert document["run"]["steps"] == 4
    assert "Traceback" not in ended.stderr


TWO = """
    import torch
    from tiny import *

    torch.manual_seed(0)
    policy, value = net(), net()
    optimizers = [sgd(policy), sgd(value)]
    for _ in range(20):
        for inputs, targets in data():
            for model, optimizer in zip((policy, value), optimizers):
                optimizer.zero_grad()
                mse(model(inputs), targets).backward()
                optimizer.step()
"""


def test_of_several_models_each_has_its_report(gradcheck: Gradcheck, write: Write, folder: Path) -> None:
    write(TWO)
    ended = gradcheck("profile", "train.py", "-o", "run.json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads((folder / "run.json").read_text())
    (other,) = document["others"]
    assert [document["run"]["model"], other["run"]["model"]] == ["policy", "value"]
    assert [document["run"]["steps"], other["run"]["steps"]] == [60, 60]
    assert other["series"]["loss"] != document["series"]["loss"]
    titles = [line.split()[1] for line in ended.stdout.splitlines() if line.split()[:1] == ["model"]]
    assert titles == ["policy", "value"]


def test_a_recording_of_several_models_has_them_all(gradcheck: Gradcheck, write: Write, folder: Path) -> None:
    write(TWO)
    live = gradcheck("profile", "train.py", "-f", "json", "--fail-on", "warning", "--save", "run.npz")
    shown = gradcheck("report", "run.npz", "-f", "json", "--fail-on", "warning")
    assert json.loads(shown.stdout) == json.loads(live.stdout)
    assert shown.returncode == live.returncode
    advice = gradcheck("recommend-clip", "run.npz", "-f", "json")
    documents = [json.loads(advice.stdout)]
    documents += documents[0]["others"]
    assert [one["run"]["model"] for one in documents] == ["policy", "value"]
    assert [one["clip"]["steps"] for one in documents] == [60, 60]
    assert documents[0]["series"]["grad_norm"] != documents[1]["series"]["grad_norm"]


def test_one_that_does_not_train_is_refused(gradcheck: Gradcheck, write: Write) -> None:
    write("print('nothing to do')")
    assert_refused(gradcheck("profile", "train.py"), "train.py ran to its end, but no optimizer took a step", "-- ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.py", "--seed", "1", "--clip", "1.0"], ["train.py is run as it is", "--clip, --seed"]),
        (["-m", "train", "--device", "cpu"], ["train is run as it is", "--device"]),
        (["nowhere.py"], ["there is no file nowhere.py"]),
        (["tiny:net", "--", "--epochs", "1"], ["tiny:net takes no arguments --epochs 1"]),
        ([], ["no TARGET is given"]),
    ],
)
@pytest.mark.usefixtures("script")
def test_what_makes_no_sense_is_refused(arguments: list[str], words: list[str], gradcheck: Gradcheck) -> None:
    assert_refused(gradcheck("profile", *arguments), *words)


WARNED = """
    import torch
    from tiny import *

    model = net()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for inputs, targets in data(3):
        scheduler.step()
        optimizer.zero_grad()
        mse(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_((parameter for parameter in ()), 1.0)
        optimizer.step()
"""


@pytest.mark.parametrize("command", ["profile", "audit", "nan-trace"])
def test_torch_warns_of_the_lines_that_it_would_warn_of(
    command: str, gradcheck: Gradcheck, write: Write, folder: Path
) -> None:
    write(WARNED)
    alone = subprocess.run([sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, check=True)
    warned = [line for line in alone.stderr.splitlines() if "UserWarning" in line]
    assert len(warned) == 2
    watched = gradcheck(command, "train.py", "-f", "json")
    assert [line for line in watched.stderr.splitlines() if "UserWarning" in line] == warned
