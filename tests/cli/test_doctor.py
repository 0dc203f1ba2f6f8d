"""gradcheck doctor: the environment, and whether it measures rightly there."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from gradcheck_cli import __version__
from gradcheck_cli.observe.native import library
from gradcheck_cli.pipeline.environment import describe, measure
from tests.cli.conftest import Gradcheck


def values(text: str) -> dict[str, str]:
    """Name and value of each line that has both."""
    parts = (line.strip().partition("  ") for line in text.splitlines() if line.startswith("  "))
    return {name: value.strip() for name, _, value in parts}


def test_it_prints_versions_devices_and_configuration(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "gradcheck.yaml").write_text("steps: 3\ntargets: {good: 'healthy.py:build'}\n")
    ended = gradcheck("doctor")
    found = values(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (found["gradcheck"], found["torch"], found["numpy"]) == (__version__, torch.__version__, numpy.__version__)
    assert (found["cpu"], found["gradcheck.yaml"], found["targets"]) == ("right", "steps, targets", "good")
    assert found["threads"].startswith("1,")
    assert found["reductions"] == "compiled"


def test_a_broken_configuration_is_named_and_the_rest_still_told(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "gradcheck.yaml").write_text("stpes: 3\n")
    ended = gradcheck("doctor")
    assert (ended.returncode, values(ended.stdout)["error"]) == (0, "gradcheck.yaml:1: unknown key 'stpes'")


def test_what_is_not_compiled_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "COMPILED", None)
    assert describe()["gradcheck"]["reductions"].startswith("not compiled")
    assert measure("cpu") == "right"


def test_a_wrong_measurement_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure("cpu") == "right"
    backward = Tensor.backward

    def double(loss: Tensor, *arguments: object) -> None:
        backward(2 * loss)

    monkeypatch.setattr(Tensor, "backward", double)
    assert measure("cpu") == "WRONG: a gradient of norm 5 was measured as 10"
    assert measure("cuda:99").startswith("FAILED: ")
