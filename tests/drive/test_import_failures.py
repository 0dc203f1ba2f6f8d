"""Targets that fail before the first step: one error, with the user's own frames and no others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import GradcheckError, TargetError
from tests.drive.conftest import Run, assert_only_the_users_frames

Profile = Callable[..., Run]

NOT_IMPORTED = {
    "syntax": ("def build(:\n", "SyntaxError"),
    "import": ("import not_installed\n", "No module named 'not_installed'"),
    "raise": ("def deep(): raise KeyError('x')\ndeep()\n", "KeyError: 'x'"),
    "exit": ("import sys\nsys.exit(0)\n", "sys.exit(0)"),
    "quit": ("raise SystemExit\n", "sys.exit(None)"),
    "argparse": (
        "import argparse as a\np = a.ArgumentParser()\np.add_argument('x')\np.parse_args()\n",
        "sys.exit(2)",
    ),
    "base": ("class Stop(BaseException): pass\nraise Stop('now')\n", "Stop: now"),
    "sibling": ("import broken\n", "ZeroDivisionError"),
}


@pytest.mark.parametrize("case", NOT_IMPORTED)
@pytest.mark.parametrize("target", ["train.py:build", "train:build"])
def test_a_file_that_cannot_be_imported(folder: Path, monkeypatch: pytest.MonkeyPatch, case: str, target: str) -> None:
    monkeypatch.delitem(sys.modules, "train", raising=False)  # another test's
    source, message = NOT_IMPORTED[case]
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "train.py").write_text(source)
    with pytest.raises(TargetError) as caught:
        pipeline.profile(target, Settings())
    error = caught.value
    assert "cannot be imported" in error.message
    assert message in error.message
    frames = [line for line in error.details.splitlines() if line.lstrip().startswith('File "')]
    assert frames
    assert all(str(folder) in frame for frame in frames)


def test_a_callable_that_fails(profile_file: Profile) -> None:
    with pytest.raises(TargetError) as caught:
        profile_file("def deep(): return 1 / 0\ndef build(): return deep()\n")
    assert "train.py:build failed: ZeroDivisionError" in caught.value.message
    assert_only_the_users_frames(caught.value.details)
    assert "in deep\n" in caught.value.details


def test_a_result_that_cannot_be_read(profile_file: Profile) -> None:
    with pytest.raises(TargetError) as caught:
        profile_file("""
            from tiny import *
            class Lazily:
                dataloader = data()
                @property
                def model(self): raise RuntimeError("no weights")
            def build(): return Lazily()
        """)
    assert "RuntimeError: no weights" in caught.value.message
    assert_only_the_users_frames(caught.value.details)


def test_a_file_beside_gradchecks_own_is_the_users(profile_file: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose path merely begins like gradcheck's is not gradcheck's."""
    from gradcheck_cli.drive import usercode

    package = str(Path(usercode.__file__).parents[1])
    assert usercode.is_users(f"{package}_experiments/train.py")
    assert not usercode.is_users(f"{package}/pipeline.py")


@pytest.mark.parametrize(("name", "message"), [("muon", "2D"), ("lbfgs", "closure"), ("adamm", "adamm")])
def test_an_optimizer_that_cannot_be_made(profile_file: Profile, name: str, message: str) -> None:
    with pytest.raises(GradcheckError) as caught:
        profile_file("from tiny import *\ndef build(): return net(), data(), mse", optimizer=name)
    assert f"--optimizer {name}" in caught.value.message
    assert message in caught.value.message
    assert "adamw" in caught.value.hint


def test_a_learning_rate_needs_an_optimizer(profile_file: Profile) -> None:
    with pytest.raises(GradcheckError, match="--lr was given without --optimizer"):
        profile_file("from tiny import *\ndef build(): return net(), data(), mse", lr=0.1)


def test_an_error_that_cannot_be_printed(profile_file: Profile) -> None:
    source = """
        class Shy(Exception):
            def __str__(self): raise RuntimeError("never")
        def build(): raise Shy
    """
    with pytest.raises(TargetError, match=r"Shy: \(no message\)"):
        profile_file(source)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")
def test_a_group_of_errors_is_trimmed_inside_too(profile_file: Profile) -> None:
    source = """
        import json

        def fails():
            try: json.loads("{")
            except ValueError as error: return error

        def build(): raise ExceptionGroup("many", [fails(), KeyError("b")])
    """
    with pytest.raises(TargetError) as caught:
        profile_file(source)
    assert "in fails" in caught.value.details
    assert "KeyError" in caught.value.details
    assert "json/decoder.py" not in caught.value.details
