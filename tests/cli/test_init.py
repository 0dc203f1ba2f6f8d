"""gradcheck init: what it writes runs as it is, and is what the folder asks for."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gradcheck_cli.scaffold.files import write_config, write_entrypoint
from gradcheck_cli.scaffold.project import look
from tests.cli.conftest import Gradcheck, assert_refused

Start = Callable[..., "subprocess.Popen[str]"]
LOOP = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(4):
    optimizer.zero_grad()
    model(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
"""
ARGUMENTS = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument({})\n"


@pytest.fixture
def empty(folder: Path) -> Path:
    for path in folder.iterdir():
        path.unlink()
    return folder


@pytest.mark.usefixtures("empty")
def test_in_an_empty_folder_it_writes_an_example_that_runs(gradcheck: Gradcheck) -> None:
    ended = gradcheck("init")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.splitlines() == [
        "wrote gradcheck.yaml",
        "wrote gradcheck_entrypoint.py",
        "next: gradcheck profile --all",
    ]
    ended = gradcheck("profile", "--all", "-f", "json")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["run"]["steps"], document["others"]) == (0, 50, [])
    assert not [finding for finding in document["findings"] if finding["severity"] != "info"]


def test_a_training_script_becomes_a_target(gradcheck: Gradcheck, empty: Path) -> None:
    (empty / "train.py").write_text(LOOP)
    (empty / "tests").mkdir()
    (empty / "tests" / "test_train.py").write_text(LOOP)
    assert gradcheck("init").returncode == 0
    assert list(yaml.safe_load((empty / "gradcheck.yaml").read_text())["targets"]) == ["train"]
    document = json.loads(gradcheck("profile", "--all", "-f", "json").stdout)
    assert (document["target"], document["run"]["steps"]) == ("train.py", 4)


def test_nothing_is_replaced_unless_it_is_forced(gradcheck: Gradcheck, empty: Path) -> None:
    (empty / "gradcheck.yaml").write_text("steps: 3\n")
    assert_refused(gradcheck("init"), "gradcheck.yaml would be replaced", "--force")
    assert [path.name for path in empty.iterdir()] == ["gradcheck.yaml"]
    assert gradcheck("init", "--force").returncode == 0
    assert "targets:" in (empty / "gradcheck.yaml").read_text()


@pytest.mark.parametrize(
    ("argument", "needed"),
    [("'data'", True), ("'--data', required=True", True), ("'--data'", False), ("'data', nargs='?'", False)],
)
def test_a_script_that_asks_for_arguments_is_only_named(tmp_path: Path, argument: str, needed: bool) -> None:
    (tmp_path / "train.py").write_text(ARGUMENTS.format(argument) + LOOP)
    config = write_config(look(tmp_path))
    assert list(yaml.safe_load(config)["targets"]) == (["example"] if needed else ["train"])
    assert "train.py" in config


def test_files_that_do_not_train_are_no_scripts(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text("def step(loss):\n    loss.backward()\n")
    (tmp_path / "evaluate.py").write_text("print(model.train(False))\n")
    (tmp_path / "broken.py").write_text("for x in\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "train.py").write_text(LOOP)
    assert look(tmp_path).scripts == ()


@pytest.mark.parametrize(
    "line",
    [
        "Trainer(model).fit(data)",
        "trainer.train()",
        "accelerator.backward(loss)",
        "if __name__ == '__main__':\n    x.backward()",
    ],
)
def test_frameworks_train_too(tmp_path: Path, line: str) -> None:
    body = line if line.startswith("if") else f"for epoch in range(3):\n    {line}"
    (tmp_path / "run.py").write_text(body + "\n")
    assert [script.path for script in look(tmp_path).scripts] == [Path("run.py")]


def test_scripts_of_the_same_name_get_names_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text(LOOP)
    targets = yaml.safe_load(write_config(look(tmp_path)))["targets"]
    assert targets == {"train": {"target": "a/train.py"}, "b-train": {"target": "b/train.py"}}


def test_a_path_that_is_no_plain_text_in_yaml(tmp_path: Path) -> None:
    (tmp_path / 'my: "train" #1.py').write_text(LOOP)
    [target] = yaml.safe_load(write_config(look(tmp_path)))["targets"].values()
    assert target == {"target": 'my: "train" #1.py'}


def test_models_are_named_in_the_entrypoint(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "models.py").write_text(
        "from torch import nn\n"
        "class Plain(nn.Module):\n    def __init__(self, width=3): pass\n"
        "class Sized(nn.Module):\n    def __init__(self, width): pass\n"
        "class Other: pass\n"
    )
    source = write_entrypoint(look(tmp_path).models)
    assert "# from nets.models import Plain; model = Plain()\n" in source
    assert "# from nets.models import Sized; model = Sized(...)\n" in source
    assert "Other" not in source
    compile(source, "entrypoint", "exec")


def answer(start: Start, folder: Path, *answers: str) -> tuple[int, str]:
    """Run `gradcheck init` on a terminal, and type these lines."""
    ours, theirs = pty.openpty()
    process = start("init", stdin=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, "".join(f"{line}\n" for line in answers).encode())
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    process.communicate(timeout=60)
    return process.returncode, shown.decode()


def test_on_a_terminal_it_asks_which_scripts_and_before_it_replaces(start: Start, empty: Path) -> None:
    for name in ("one.py", "two.py"):
        (empty / name).write_text(LOOP)
    code, shown = answer(start, empty, "n", "y")
    assert code == 0
    assert "profile one.py?" in shown
    assert list(yaml.safe_load((empty / "gradcheck.yaml").read_text())["targets"]) == ["two"]
    before = (empty / "gradcheck.yaml").read_text()
    code, shown = answer(start, empty, "y", "y", "n")
    assert code == 2
    assert "replace gradcheck.yaml and gradcheck_entrypoint.py?" in shown
    assert (empty / "gradcheck.yaml").read_text() == before
