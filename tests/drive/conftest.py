"""Entrypoints for the tests: as functions, and as files that a user might write."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.records import Report
from tests.drive.training import TINY, Parts, state_of

Run = tuple[Report, GradcheckError | None]


@pytest.fixture(autouse=True)
def fresh_interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test imports its own targets, whatever the tests before it imported."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(known):
        if not str(getattr(sys.modules[name], "__file__", None) or "").startswith(sys.prefix):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the user's `tiny.py` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(TINY)
    return tmp_path


@pytest.fixture
def profile_file(folder: Path) -> Callable[..., Run]:
    """Write a file and profile a callable in it: `profile_file(source, steps=3)`."""

    def profile(source: str, name: str = "train.py", callable_: str = "build", **settings: Any) -> Run:
        (folder / name).write_text(textwrap.dedent(source))
        return pipeline.profile(f"{name}:{callable_}", Settings(**{"steps": 3, **settings}))

    return profile


@pytest.fixture
def profile(folder: Path) -> Callable[..., Run]:
    """Profile a function as an entrypoint: `profile(build, steps=3)`."""

    def run(build: Any, **settings: Any) -> Run:
        sys.modules["in_memory"] = module = ModuleType("in_memory")
        module.build = build  # type: ignore[attr-defined]
        return pipeline.profile("in_memory:build", Settings(**{"steps": 3, **settings}))

    return run


@pytest.fixture
def trained(profile: Callable[..., Run]) -> Callable[..., tuple[dict[str, Tensor], Run]]:
    """The model's state after gradcheck has trained it, and the report."""

    def train(build: Callable[[], Parts], **settings: Any) -> tuple[dict[str, Tensor], Run]:
        made: list[Parts] = []

        def build_and_keep() -> Parts:
            made.append(build())
            return made[0]

        run = profile(build_and_keep, **settings)
        assert run[1] is None
        return state_of(made[0]), run

    return train


def assert_only_the_users_frames(details: str) -> None:
    """All frames of a traceback are in the user's files."""
    frames = [line for line in details.splitlines() if line.lstrip().startswith('File "')]
    assert frames
    assert all("train.py" in frame or "tiny.py" in frame for frame in frames)
