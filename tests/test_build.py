"""What is compiled when gradcheck is installed, and what is done where nothing can be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gradcheck_cli.observe.native.library import load

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "gradcheck_cli" / "observe" / "native"


@pytest.fixture
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_compiler_of_the_machine_makes_a_library(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert build.compile_reductions(FOLDER, tmp_path / build.LIBRARY)
    reductions = load("_reductions")
    assert reductions is not None
    assert reductions.moments_of(torch.tensor([3.0, -4.0])) == (-1.0, 25.0, 4.0, 0.0)


def test_a_compiler_that_fails_is_passed_over(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for compiler in ("false", "/there/is/none"):
        monkeypatch.setenv("CC", compiler)
        assert build.compile_reductions(FOLDER, tmp_path / "made.so")


def test_without_a_compiler_no_library_of_another_version_stays(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "made.so").write_text("older")
    assert not build.compile_reductions(FOLDER, tmp_path / "made.so")
    assert not (tmp_path / "made.so").exists()


def test_the_source_has_no_warnings(build: ModuleType, tmp_path: Path) -> None:
    strict = ["-Wall", "-Wextra", "-Werror", "-std=gnu11"]
    sources = map(str, FOLDER.glob("*.c"))
    assert build.run(["cc", *build.FLAGS, *strict, *sources, "-o", str(tmp_path / "made.so"), "-lm"])
