"""What is refused before torch is even loaded, and the commands that never load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gradcheck_cli import __version__
from gradcheck_cli.cli.options import given
from gradcheck_cli.diagnose.rules import RULES
from gradcheck_cli.errors import ConfigError
from tests.cli.conftest import Gradcheck, assert_refused

LOADED = "from pathlib import Path\nPath('imported').touch()\nfrom healthy import build\n"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nowhere/run.json", ["cannot write nowhere/run.json", "no directory", "mkdir -p"]),
        ("run.docx", ["cannot tell the format of run.docx", ".json"]),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_run(
    gradcheck: Gradcheck, write: Callable[[str], None], folder: Path, output: str, words: list[str]
) -> None:
    write(LOADED)
    before = sorted(folder.rglob("*"))
    assert_refused(gradcheck("profile", "train.py:build", "-o", "good.json", "-o", output), "error: ", "hint: ", *words)
    assert sorted(folder.rglob("*")) == before, "nothing was run, and nothing written"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], ["--steps must be a whole number of at least 1, not 0"]),
        (["--set", "width"], ["--set width is not NAME=VALUE", "--set hidden=256"]),
        (["-f", "npz"], ["no such format for stdout: npz", "table, json"]),
        (["--no-such-option"], ["No such option"]),
    ],
)
def test_a_bad_option(gradcheck: Gradcheck, arguments: list[str], words: list[str]) -> None:
    assert_refused(gradcheck("profile", "healthy.py:build", *arguments), *words)


def test_a_configuration_that_cannot_be_read(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "gradcheck.yaml").write_text("device: cpu\nstpes: 3\n")
    ended = gradcheck("profile", "healthy.py:build")
    assert_refused(ended, "error: gradcheck.yaml:2: unknown key 'stpes'", "did you mean 'steps'?")


def test_rules_are_listed(gradcheck: Gradcheck) -> None:
    ended = gradcheck("rules")
    assert (ended.returncode, ended.stderr) == (0, "")
    for rule in RULES:
        assert rule.code in ended.stdout
        assert rule.name in ended.stdout


@pytest.mark.parametrize("name", ["gc101", "vanishing-gradient"])
def test_a_rule_is_documented(gradcheck: Gradcheck, name: str) -> None:
    ended = gradcheck("rules", name)
    assert ended.returncode == 0
    for heading in ("What it detects", "Why it matters", "How to fix", "How it decides"):
        assert heading in ended.stdout


def test_an_unknown_rule(gradcheck: Gradcheck) -> None:
    assert_refused(gradcheck("rules", "GC999"), "there is no rule GC999", "gradcheck rules")


def test_version_and_help(gradcheck: Gradcheck) -> None:
    assert gradcheck("--version").stdout.split() == ["gradcheck", __version__]
    ended = gradcheck("--help")
    assert ended.returncode == 0
    assert all(command in ended.stdout for command in ("profile", "report", "rules"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("-2.5E+4", -2.5e4),
        ("1.e5", 1e5),
        ("true", True),
        ("null", None),
        ("", None),
        ("a=b", "a=b"),
        ("[1, x]", [1, "x"]),
        ("{a: 1e-2}", {"a": 0.01}),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("e3", "e3"),
    ],
)
def test_set_reads_yaml(text: str, value: object) -> None:
    read = given({"set": [f"name={text}"]})["set"]
    assert read == {"name": value}
    assert type(read["name"]) is type(value)


@pytest.mark.parametrize("assignment", ["name", "=3", "name=[1,", "name=2020-13-45", "name={a: b: c}"])
def test_a_value_that_cannot_be_read(assignment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        given({"set": [assignment]})
    assert f"--set {assignment}" in caught.value.message
    assert caught.value.hint


def test_only_what_was_given_counts() -> None:
    assert given({"steps": None, "lr": None, "set": None, "quiet": None, "output": None, "save": None}) == {}
    assert given({"set": None, "probe_every": 0, "output": ["a.json"], "save": "b.npz"}) == {
        "probe_every": 0,
        "output": ["a.json", "b.npz"],
    }
