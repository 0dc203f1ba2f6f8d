"""Named targets on the command line, alone and all together, as processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Gradcheck, assert_refused

YAML = """
steps: 12
targets:
  good: healthy.py:build
  bad:
    target: sick.py:build
    steps: 8
    output: [bad.json]
"""


@pytest.fixture(autouse=True)
def config(folder: Path) -> Path:
    (folder / "gradcheck.yaml").write_text(YAML)
    return folder


def test_one_by_its_name(gradcheck: Gradcheck) -> None:
    ended = gradcheck("profile", "good", "-f", "json")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["target"], document["run"]["steps"]) == (0, "healthy.py:build", 12)


def test_all_in_one_document(gradcheck: Gradcheck, folder: Path) -> None:
    ended = gradcheck("profile", "--all", "-f", "json")
    document = json.loads(ended.stdout)
    assert ended.returncode == document["exit_code"] == 1
    assert (document["target"], document["run"]["steps"]) == ("healthy.py:build", 12)
    [other] = document["others"]
    assert (other["target"], other["run"]["steps"]) == ("sick.py:build", 8)
    assert json.loads((folder / "bad.json").read_text())["target"] == "sick.py:build"


def test_one_that_fails_does_not_keep_the_others_from_being_judged(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "gradcheck.yaml").write_text("targets: {broken: 'nowhere.py:build', bad: 'sick.py:build'}")
    ended = gradcheck("profile", "--all", "--steps", "3")
    assert ended.returncode == 2
    assert "broken:\nerror: there is no file nowhere.py" in ended.stderr
    assert "sick.py:build" in ended.stdout
    assert "GC106" in ended.stdout


def test_no_target_sees_what_another_imported(gradcheck: Gradcheck, folder: Path) -> None:
    for name, width in {"one": 3, "two": 5}.items():
        (folder / name).mkdir()
        (folder / name / "parts.py").write_text(f"WIDTH = {width}\n")
        (folder / name / "train.py").write_text(
            "import torch, parts\n"
            "def build():\n"
            "    model = torch.nn.Linear(2, parts.WIDTH)\n"
            "    step = lambda model, batch: model(batch).square().mean()\n"
            "    return {'model': model, 'dataloader': [torch.ones(1, 2)] * 3, 'training_step': step}\n"
        )
    (folder / "gradcheck.yaml").write_text("targets: {one: 'one/train.py:build', two: 'two/train.py:build'}")
    document = json.loads(gradcheck("profile", "--all", "--steps", "2", "-f", "json").stdout)
    assert [one["parameters"]["total"] for one in (document, *document["others"])] == [9, 15]


def test_what_is_of_one_target_is_refused(gradcheck: Gradcheck) -> None:
    assert_refused(gradcheck("profile", "--all", "--baseline", "b.json"), "--baseline is for one target")


def test_without_names_there_is_nothing_to_run(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "gradcheck.yaml").unlink()
    assert_refused(gradcheck("profile", "--all"), "no configuration names any", "gradcheck init")


SHELL = """
eval "$(gradcheck --show-completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_gradcheck_completion gradcheck
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [("gradcheck prof", "profile"), ("gradcheck profile g", "good"), ("gradcheck nan-trace b", "bad")],
)
def test_bash_completes(words: str, offered: str, folder: Path, environment: dict[str, str]) -> None:
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    script = SHELL.format(words=words)
    ended = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == [offered], ended.stderr
