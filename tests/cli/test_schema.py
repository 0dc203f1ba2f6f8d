"""gradcheck schema: editors and gradcheck agree on what a configuration may say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gradcheck_cli.cli.schema import config_schema
from gradcheck_cli.config import KINDS, load_settings
from gradcheck_cli.config_targets import read_targets
from gradcheck_cli.errors import ConfigError
from tests.cli.conftest import Gradcheck, assert_refused

SCHEMA: dict[str, Any] = json.loads(config_schema())


def agrees(text: str, folder: Path) -> bool:
    """Whether gradcheck takes a configuration; the schema must say the same."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text))
    path = folder / "config.yaml"
    path.write_text(text)
    try:
        load_settings({}, path)
        read_targets(path)
    except ConfigError:
        assert not valid
        return False
    assert valid
    return True


@pytest.mark.parametrize(
    "text",
    [
        "steps: 20\nprecision: bf16\nignore: [GC107, GC2]\nclip: null\nseverity: {GC107: error}",
        "select: GC1,GC2\nset: {width: 3}\nverify_against: [1.0, zclip]\nmax-norm: 2",
        "targets: {a: 'train.py:build', b: {target: train.py, arguments: ['-x'], steps: 3}, c: {module: m}}",
    ],
)
def test_both_take_it(text: str, tmp_path: Path) -> None:
    assert agrees(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "stpes: 20",
        "steps: 0",
        "steps: many",
        "precision: fp8",
        "clip: -1",
        "quiet: 3",
        "severity: {GC107: fatal}",
        "targets: {a: {steps: 3}}",
        "targets: {a: {target: x.py, stpes: 3}}",
        "targets: {a: {target: x.py, module: y}}",
        "targets: [x.py]",
        "write_baseline: b.json",
        "targets: {a: {target: x.py, accept: [GC103=why]}}",
    ],
)
def test_neither_takes_it(text: str, tmp_path: Path) -> None:
    assert not agrees(text, tmp_path)


def test_every_setting_is_described() -> None:
    assert set(SCHEMA["properties"]) == {*KINDS, "targets"} - {"write_baseline", "accept"}
    assert [name for name, one in SCHEMA["properties"].items() if not one.get("description")] == []
    assert [name for name, one in SCHEMA["properties"].items() if not {"type", "enum", "anyOf"} & set(one)] == []


def test_both_are_printed_without_torch() -> None:
    code = "import sys; import gradcheck_cli.cli.schema as it; it.schema(); assert 'torch' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == SCHEMA


def test_that_of_the_report(gradcheck: Gradcheck) -> None:
    assert "findings" in json.loads(gradcheck("schema", "report").stdout)["properties"]
    assert_refused(gradcheck("schema", "baseline"), "there is no schema of baseline")
