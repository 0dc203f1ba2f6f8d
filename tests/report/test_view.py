"""What suits a stream."""

from __future__ import annotations

import io

import pytest

from gradcheck_cli.report.view import View


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def terminal(encoding: str = "utf-8") -> Terminal:
    return Terminal(io.BytesIO(), encoding=encoding)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "93")


def test_colour_on_a_terminal_only() -> None:
    assert View.of(terminal()).color
    assert not View.of(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")).color


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_the_environment_can_forbid_colour(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    assert not View.of(terminal()).color


@pytest.mark.parametrize(
    ("encoding", "unicode"), [("utf-8", True), ("UTF-16", True), ("latin-1", False), ("ascii", False)]
)
def test_unicode_where_the_encoding_is_a_utf(encoding: str, unicode: bool) -> None:
    assert View.of(terminal(encoding)).unicode is unicode


def test_width_is_the_terminals() -> None:
    assert View.of(terminal()).width == 93


def test_what_is_asked_for_is_kept() -> None:
    view = View.of(terminal(), all_layers=True, depth=2, depth_plot=False)
    assert (view.all_layers, view.depth, view.depth_plot) == (True, 2, False)
    assert View.of(terminal()).depth_plot is None
