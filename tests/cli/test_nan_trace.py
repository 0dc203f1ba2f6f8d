"""`gradcheck nan-trace`: what its shell takes, refuses and hands on. What is found, tests/nan_corpus says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Gradcheck, assert_refused
from tests.zygote import quick_programs

STUB = """
import sys, types
import gradcheck_cli
from tests.report.traces import TRACES
def nan_trace(target, settings, watch, save_repro=None):
    print(target, settings.steps, settings.one_epoch, settings.seed, save_repro, file=sys.stderr)
    print("the user's own print")
    return TRACES[target], None
gradcheck_cli.pipeline = sys.modules["gradcheck_cli.pipeline"] = types.SimpleNamespace(nan_trace=nan_trace)
from gradcheck_cli.cli import main
main()
"""
LOADED = "from pathlib import Path\nPath('imported').touch()\nfrom healthy import build\n"


@pytest.fixture
def shell(folder: Path, environment: dict[str, str]) -> Gradcheck:
    """The command with a pipeline that finds what tests/report/traces.py has under the name of the target."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [f"{quick_programs()}/python", "-c", STUB, "nan-trace", *arguments]
        paths = {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            line, cwd=folder, env=environment | paths, capture_output=True, encoding="utf-8", timeout=60, check=False
        )

    return run


def test_settings_are_handed_on(shell: Gradcheck, folder: Path) -> None:
    assert shell("trace-clean").stderr.startswith("trace-clean 1000 True 0 None\n")
    given = shell("trace-clean", "--steps", "7", "--seed", "3", "--save-repro", "bug")
    assert given.stderr.startswith(f"trace-clean 7 False 3 {folder / 'bug'}\n")


@pytest.mark.parametrize(("name", "code"), [("trace-clean", 0), ("trace-backward", 1), ("trace-not-reproduced", 1)])
def test_the_exit_code_is_the_reports(shell: Gradcheck, name: str, code: int) -> None:
    assert shell(name).returncode == code


def test_the_report_has_stdout_to_itself_and_files_have_it_too(shell: Gradcheck, folder: Path) -> None:
    ended = shell("trace-backward", "-f", "json", "-o", "trace.json", "-o", "trace.txt")
    assert json.loads(ended.stdout)["origins"][0]["cause"] == "sqrt-at-zero"
    assert (folder / "trace.json").read_text(encoding="utf-8") == ended.stdout
    assert "✗ step 37: the gradient became NaN in backward" in (folder / "trace.txt").read_text(encoding="utf-8")
    assert "the user's own print" in ended.stderr
    assert "\x1b" not in shell("trace-backward").stdout


def test_all_operations_are_listed_when_they_are_asked_for(shell: Gradcheck, folder: Path) -> None:
    assert "masked_fill" not in shell("trace-backward").stdout
    asked = shell("trace-backward", "--all-ops", "-o", "trace.txt")
    assert "masked_fill" in asked.stdout
    assert "masked_fill" in (folder / "trace.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "run.npz"], ["cannot write run.npz", "nan-trace keeps no recording", "a text format"]),
        (["-f", "npz"], ["no such format for stdout: npz"]),
        (["--save-repro", "healthy.py"], ["cannot write to healthy.py", "it is a file"]),
        (["--save-repro", "no/where"], ["cannot make no/where", "mkdir -p"]),
        (["--steps", "0"], ["--steps must be a whole number of at least 1, not 0"]),
        (["--keep-going"], ["No such option"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_run(
    gradcheck: Gradcheck, write: Callable[[str], None], folder: Path, arguments: list[str], words: list[str]
) -> None:
    write(LOADED)
    before = sorted(folder.rglob("*"))
    assert_refused(gradcheck("nan-trace", "train.py:build", *arguments), *words)
    assert sorted(folder.rglob("*")) == before, "nothing was run, and nothing written"


# A whole script


SCRIPT = """
import sys
import torch
from torch import nn

print("the script's own print", sys.argv[1:])
model = nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(int(sys.argv[1])):
    x = torch.rand(8, 4)
    scale = x.sum() * (step != 2)
    loss = (model(x) / scale).square().mean()  # the fault
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def test_a_script_is_run_as_it_is_and_traced(gradcheck: Gradcheck, write: Callable[[str], None]) -> None:
    write(SCRIPT)
    ended = gradcheck("nan-trace", "train.py", "-f", "json", "--", "5")
    assert ended.returncode == 1, ended.stderr
    document = json.loads(ended.stdout)
    (origin,), (finding,) = document["origins"], document["findings"]
    fault = next(number for number, line in enumerate(SCRIPT.splitlines(), 1) if "# the fault" in line)
    assert (origin["step"], origin["op"], origin["verified"]) == (2, "aten::div", True)
    assert (finding["location"]["file"], finding["location"]["line"]) == ("train.py", fault)
    assert ended.stderr.count("the script's own print ['5']") == 1


def test_a_repro_of_a_script_is_refused_before_it_runs(
    gradcheck: Gradcheck, write: Callable[[str], None], folder: Path
) -> None:
    write(LOADED)
    assert_refused(gradcheck("nan-trace", "train.py", "--save-repro", "bug"), "--save-repro", "train.py:build")
    assert not (folder / "imported").exists()
    assert not (folder / "bug").exists()


# The catalogue


def test_causes_are_listed_and_documented(gradcheck: Gradcheck) -> None:
    from gradcheck_cli.diagnose.nan.causes import CAUSES

    ended = gradcheck("rules", "nan")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert CAUSES
    for cause in CAUSES:
        assert f"{cause.id} " in ended.stdout
    one = gradcheck("rules", CAUSES[0].id.upper())
    assert one.returncode == 0
    assert one.stdout.strip() == CAUSES[0].documentation.strip()
    assert_refused(gradcheck("rules", "no-such-cause"), "there is no rule no-such-cause", "gradcheck rules nan")
