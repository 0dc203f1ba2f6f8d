"""Named targets: what a name stands for, whose settings count, and errors with their line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradcheck_cli.config import load_settings
from gradcheck_cli.config_targets import find_target, read_targets
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.targets import Script

YAML = """
steps: 30
set: {width: 8, depth: 2}
targets:
  cnn: models/cnn.py:build
  gpt:
    target: train.py
    arguments: [--epochs, "1"]
    steps: 20
    ignore: [GC107]
  module:
    module: package.train
    fail-on: warning
"""
TOML = """
[tool.gradcheck]
steps = 30
targets.cnn = "models/cnn.py:build"
[tool.gradcheck.targets.gpt]
target = "train.py"
steps = 20
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(name: str | None, *arguments: str, module: str | None = None) -> tuple[str | Script, Any]:
    return find_target(name, module, arguments, None)


def test_a_name_stands_for_its_target() -> None:
    Path("gradcheck.yaml").write_text(YAML)
    assert find("cnn") == ("models/cnn.py:build", {})
    assert find("gpt") == (Script("train.py", ("--epochs", "1")), {"steps": 20, "ignore": ("GC107",)})
    assert find("module") == (Script("package.train", is_module=True), {"fail_on": "warning"})


def test_arguments_of_the_command_line_take_the_place_of_its_own() -> None:
    Path("gradcheck.yaml").write_text(YAML)
    assert find("gpt", "--lr", "1")[0] == Script("train.py", ("--lr", "1"))
    with pytest.raises(ConfigError, match="takes no arguments"):
        find("cnn", "--lr", "1")


def test_what_is_no_name_is_a_target() -> None:
    Path("gradcheck.yaml").write_text(YAML)
    assert find("other.py:build") == ("other.py:build", {})
    assert find("other.py") == (Script("other.py"), {})
    assert find("cnn", module="package.other")[0] == Script("package.other", ("cnn",), is_module=True)


def test_without_a_target_the_names_are_listed() -> None:
    Path("gradcheck.yaml").write_text(YAML)
    with pytest.raises(ConfigError) as caught:
        find(None)
    assert caught.value.hint == "name one: cnn, gpt, module; gradcheck profile --all runs them all"


def test_flags_go_over_its_own_settings_and_these_over_the_general_ones() -> None:
    Path("gradcheck.yaml").write_text(YAML)
    own = find("gpt")[1]
    assert load_settings({}, None, own).steps == 20
    assert load_settings({"steps": 3}, None, own).steps == 3
    assert load_settings({}, None, find("cnn")[1]).steps == 30


def test_arguments_of_a_callable_are_merged() -> None:
    Path("gradcheck.yaml").write_text(YAML + "  wide: {target: 'a.py:b', set: {width: 16}}\n")
    own = find("wide")[1]
    assert load_settings({}, None, own).set == {"width": 16, "depth": 2}
    assert load_settings({"set": {"depth": 1}}, None, own).set == {"width": 16, "depth": 1}


def test_toml() -> None:
    Path("pyproject.toml").write_text(TOML)
    assert find("cnn")[0] == "models/cnn.py:build"
    assert find("gpt") == (Script("train.py"), {"steps": 20})
    assert load_settings({}).steps == 30


def test_no_configuration_has_no_targets() -> None:
    assert read_targets(None) == {}


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ("cnn:\n    target: a.py:b\n    stpes: 3", "gradcheck.yaml:4: unknown key 'targets.cnn.stpes'", "'steps'?"),
        ("cnn:\n    target: a.py:b\n    steps: x", "gradcheck.yaml:4: targets.cnn.steps must be a whole number", ""),
        ("cnn:\n    steps: 3", "gradcheck.yaml:2: targets.cnn must have a target or a module", "targets: {cnn"),
        ("cnn: {target: a.py, module: b}", "gradcheck.yaml:2: targets.cnn must have a target or a module", ""),
        ("cnn: {target: 3}", "gradcheck.yaml:2: targets.cnn.target must be text", "targets: {cnn"),
        ("cnn: {target: a.py, arguments: --x}", "targets.cnn.arguments must be text", ""),
        ("cnn: {target: a.py, accept: x}", "targets.cnn.accept is for the command line", "type --accept"),
        ("cnn: 3", "gradcheck.yaml:2: targets.cnn must be a target, or keys and values", ""),
        ("cnn: {target: a.py, targets: {}}", "gradcheck.yaml:2: unknown key 'targets.cnn.targets'", "target"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(lines: str, message: str, hint: str) -> None:
    Path("gradcheck.yaml").write_text(f"targets:\n  {lines}\n")
    with pytest.raises(ConfigError) as caught:
        read_targets(None)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_targets_that_are_no_names() -> None:
    Path("gradcheck.yaml").write_text("steps: 3\ntargets: [a.py]\n")
    with pytest.raises(ConfigError, match=r"gradcheck.yaml:2: targets must be names"):
        read_targets(None)
