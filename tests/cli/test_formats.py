"""Several formats at once, and the step summary of GitHub Actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gradcheck_cli import archive
from tests.cli.conftest import Gradcheck
from tests.diagnose.recordings import make_recording

MIB = 1024 * 1024
QUICK = ("--steps", "2", "--select", "GC1")


@pytest.fixture
def recorded(folder: Path) -> Path:
    """A recording with an error, GC106."""
    (folder / "sick.npz").write_bytes(archive.dumps(make_recording(not_optimized=["fc2.weight"])))
    return folder / "sick.npz"


@pytest.fixture
def summary(folder: Path, environment: dict[str, str]) -> Path:
    """The file that GitHub Actions gives to a step."""
    environment["GITHUB_STEP_SUMMARY"] = str(folder / "summary.md")
    return folder / "summary.md"


def test_several_files_at_once(gradcheck: Gradcheck, recorded: Path, folder: Path) -> None:
    names = ("r.json", "r.md", "r.xml", "r.sarif", "r.txt")
    ended = gradcheck("report", "sick.npz", *(part for name in names for part in ("-o", name)))
    assert ended.returncode == 1
    assert [line.rpartition("/")[2] for line in ended.stderr.splitlines()] == list(names)
    assert json.loads((folder / "r.json").read_text())["findings"][0]["code"] == "GC106"
    assert "GC106 parameter-not-optimized" in (folder / "r.md").read_text(encoding="utf-8")
    assert ElementTree.parse(folder / "r.xml").find(".//failure") is not None
    assert json.loads((folder / "r.sarif").read_text())["runs"][0]["results"][0]["ruleId"] == "GC106"


@pytest.mark.parametrize("name", ["markdown", "github", "junit", "sarif"])
def test_formats_are_printed_whatever_the_encoding_of_stdout(
    gradcheck: Gradcheck, recorded: Path, environment: dict[str, str], name: str
) -> None:
    environment["PYTHONIOENCODING"] = "ascii"
    ended = gradcheck("report", "sick.npz", "-f", name)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "GC106" in ended.stdout
    assert ended.stdout.isascii()


def test_annotations_of_a_run_point_at_the_line_to_look_at(
    gradcheck: Gradcheck, folder: Path, environment: dict[str, str]
) -> None:
    environment["GITHUB_WORKSPACE"] = str(folder.parent)
    ended = gradcheck("profile", "sick.py:build", *QUICK, "-f", "github", "-q")
    assert f"::error file={folder.name}/sick.py,line=2,title=GC106 parameter-not-optimized::" in ended.stdout


def test_github_has_no_suffix(gradcheck: Gradcheck, recorded: Path) -> None:
    ended = gradcheck("report", "sick.npz", "-o", "r.github")
    assert ended.returncode == 2
    assert ".sarif" in ended.stderr


@pytest.mark.parametrize("name", ["profile", "recommend-clip", "nan-trace"])
def test_a_run_adds_itself_to_the_summary(gradcheck: Gradcheck, summary: Path, name: str) -> None:
    summary.write_text("before, without an end of line")
    ended = gradcheck(name, "healthy.py:build", "--steps", "2", "-q")
    assert ended.returncode == 0, ended.stderr
    before, title, *_ = summary.read_text(encoding="utf-8").splitlines()
    assert (before, title) == ("before, without an end of line", f"## gradcheck {name} `healthy.py:build`")


def test_an_audit_adds_itself_to_the_summary(gradcheck: Gradcheck, summary: Path, write: Callable[[str], None]) -> None:
    write(
        "from healthy import *\nmodel, batches, loss_fn, optimizer = build()\nfor x, y in list(batches)[:2]:\n"
        "    optimizer.zero_grad()\n    loss_fn(model(x), y).backward()\n    optimizer.step()\n"
    )
    assert gradcheck("audit", "train.py", "-q").returncode == 0
    assert summary.read_text(encoding="utf-8").startswith("## gradcheck audit `train.py`")


def test_summaries_follow_each_other(gradcheck: Gradcheck, recorded: Path, summary: Path) -> None:
    for _ in range(2):
        gradcheck("report", "sick.npz")
    assert summary.read_text(encoding="utf-8").count("\n## gradcheck profile") == 1
    assert summary.read_text(encoding="utf-8").startswith("## gradcheck profile")


def test_no_summary_if_it_is_not_wanted(gradcheck: Gradcheck, recorded: Path, summary: Path, folder: Path) -> None:
    gradcheck("report", "sick.npz", "--no-step-summary")
    assert not summary.exists()
    (folder / "gradcheck.yaml").write_text("step_summary: false\n")
    gradcheck("report", "sick.npz")
    assert not summary.exists()
    gradcheck("report", "sick.npz", "--step-summary")
    assert summary.exists()


def test_a_summary_keeps_to_githubs_limit(gradcheck: Gradcheck, recorded: Path, summary: Path) -> None:
    summary.write_text("x" * (MIB - 4500) + "\n")
    ended = gradcheck("report", "sick.npz")
    assert ended.stderr == ""
    assert MIB - 4500 < summary.stat().st_size < MIB
    size = summary.stat().st_size
    ended = gradcheck("report", "sick.npz")
    assert summary.stat().st_size == size
    assert "not in the step's summary: it is full" in ended.stderr
    assert ended.returncode == 1
    assert gradcheck("report", "sick.npz", "-q").stderr == ""


def test_a_summary_that_cannot_be_written_is_no_failure(
    gradcheck: Gradcheck, recorded: Path, environment: dict[str, str], folder: Path
) -> None:
    environment["GITHUB_STEP_SUMMARY"] = str(folder / "missing" / "summary.md")
    ended = gradcheck("report", "sick.npz")
    assert ended.returncode == 1
    assert "GC106" in ended.stdout
    assert "not in the step's summary: cannot write to" in ended.stderr
