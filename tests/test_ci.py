"""The recipes of docs/ci.md and the action, run as their CI would run them; only what installs is left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.zygote import quick_programs

ROOT = Path(__file__).parents[1]
RECIPES = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE | re.DOTALL)
CONFIG, WORKFLOW, PLAIN_WORKFLOW, GITLAB, PRE_COMMIT = [yaml.safe_load(text) for _, text in RECIPES]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
MODEL = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.body(x))
        return self.head(x)


def build():
    model = Net()
    data = [(torch.randn(16, 8), torch.randint(3, (16,))) for _ in range(8)]
    return model, data, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)
"""
CUT = MODEL.replace("x = F.relu(self.body(x))", "x = F.relu(self.body(x)).detach()")
YAML = "targets:\n  model:\n    target: train.py:build\n    steps: 20\n"


@dataclass(frozen=True)
class Job:
    """What one CI job printed, wrote and ended with."""

    code: int
    stdout: str
    stderr: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(MODEL)
    (tmp_path / "gradcheck.yaml").write_text(YAML)
    return tmp_path


def shell(script: str, folder: Path, **variables: str) -> Job:
    """Run a script as GitHub and GitLab do."""
    files = {name: folder.parent / f"{folder.name}.{name}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for path in files.values():
        path.write_text("")
    binaries = os.pathsep.join([quick_programs(), str(Path(sys.executable).parent), os.environ["PATH"]])
    known = {"PATH": binaries, "PYTHONUTF8": "1"}
    environment = {
        **os.environ,
        **known,
        "GITHUB_ACTIONS": "true",
        **{k: str(v) for k, v in files.items()},
        **variables,
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    outputs = dict(line.partition("=")[::2] for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return Job(done.returncode, done.stdout, done.stderr, outputs, files["GITHUB_STEP_SUMMARY"].read_text())


def run_action(inputs: Mapping[str, str], folder: Path) -> Job:
    """The action's steps with these inputs, and its defaults for the rest."""
    given = {name: inputs.get(name, one["default"]) for name, one in ACTION["inputs"].items()} | {
        "install": "",
        "torch": "",
    }
    for step in ACTION["runs"]["steps"]:
        variables = {name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], value)
                     for name, value in step["env"].items()}  # fmt: skip
        job = shell(step["run"], folder, **variables)
        if job.code:
            break
    return job


def installs(line: str) -> bool:
    return line.startswith("pip install")


def steps_of(workflow: Mapping[Any, Any]) -> list[dict[str, Any]]:
    [job] = workflow["jobs"].values()
    steps: list[dict[str, Any]] = job["steps"]
    return steps


def plain_lines() -> Iterator[str]:
    yield from (step["run"] for step in steps_of(PLAIN_WORKFLOW) if not installs(step.get("run", "pip install")))


def test_a_pull_request_that_cuts_a_layer_off_is_stopped(project: Path) -> None:
    """The whole story: a baseline on main, a pull request that is fine, and one that is not."""
    [step] = [step for step in steps_of(WORKFLOW) if "gradcheck" in step.get("uses", "")]
    inputs = step["with"]
    assert shell("gradcheck profile model --write-baseline gradcheck-baseline.json", project).code == 0
    (project / "train.py").write_text(MODEL.replace("16, 16", "16, 16, bias=True"))
    passed = run_action(inputs, project)
    assert (passed.code, passed.outputs["exit-code"]) == (0, "0"), passed.stderr
    assert "::error" not in passed.stdout
    (project / "train.py").write_text(CUT)
    stopped = run_action(inputs, project)
    assert (stopped.code, stopped.outputs["exit-code"]) == (1, "1"), stopped.stderr
    line = MODEL.splitlines().index("class Net(nn.Module):") + 1
    assert re.search(rf"^::error file=train.py,line={line},.*GC103", stopped.stdout, re.MULTILINE), stopped.stdout
    assert "GC103" in stopped.summary
    codes = {finding["code"] for finding in json.loads(Path(stopped.outputs["json"]).read_text())["findings"]}
    assert "GC103" in codes
    assert "GC103" in Path(stopped.outputs["html"]).read_text()


def test_a_script_that_cannot_run_is_no_finding(project: Path) -> None:
    (project / "train.py").write_text("raise SystemError('no data')\n")
    assert run_action({"target": "model"}, project).outputs["exit-code"] == "2"


def test_every_input_is_used_and_every_output_is_given() -> None:
    text = (ROOT / "action.yml").read_text()
    used = set(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", text))
    assert used == set(ACTION["inputs"])
    assert set(re.findall(r"echo \"([\w-]+)=", text)) == set(ACTION["outputs"])


def test_without_the_action(project: Path) -> None:
    [line] = plain_lines()
    assert shell(line, project).code == 0
    [upload] = [step for step in steps_of(PLAIN_WORKFLOW) if "sarif" in step.get("uses", "")]
    assert json.loads((project / upload["with"]["sarif_file"]).read_text())["version"] == "2.1.0"
    (project / "train.py").write_text(CUT)
    assert shell(line, project).code == 1


def test_gitlab(project: Path) -> None:
    job = GITLAB["gradients"]
    assert all(map(installs, job["before_script"]))
    [line] = job["script"]
    assert shell(line, project).code == 0
    for name in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert (project / name).stat().st_size > 0
    (project / "train.py").write_text(CUT)
    assert shell(line, project).code == 1
    assert "<failure" in (project / job["artifacts"]["reports"]["junit"]).read_text()


def test_pre_commit(project: Path) -> None:
    [hook] = PRE_COMMIT["repos"][0]["hooks"]
    assert (hook["language"], hook["pass_filenames"]) == ("system", False)
    passed = shell(hook["entry"], project)
    assert (passed.code, passed.stderr) == (0, "")
    (project / "train.py").write_text(CUT)
    assert shell(hook["entry"], project).code == 1


def test_the_configuration_of_the_page_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models")
    (tmp_path / "gradcheck.yaml").write_text(yaml.safe_dump(CONFIG))
    assert shell("gradcheck profile --all --steps 2", tmp_path).code == 0
