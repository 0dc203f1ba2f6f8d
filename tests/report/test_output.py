"""Files are written whole or not at all, and formats are told by their suffixes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gradcheck_cli.errors import OutputError
from gradcheck_cli.report.formats import FORMATS, format_of, render
from gradcheck_cli.report.output import check, write
from gradcheck_cli.report.view import View
from tests.report.reports import REPORTS


def test_write_makes_and_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    write(path, "first, longer\n")
    write(path, "✓\n")
    assert path.read_bytes() == "✓\n".encode()
    write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["report.txt"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write(tmp_path / "report.txt", "x")
    assert (tmp_path / "report.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


def test_failing_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def fill_disk(self: Path, content: bytes) -> None:
        with open(self, "wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write(path, "new content")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    for attempt in (lambda path: write(path, "x"), check):
        with pytest.raises(OutputError, match="no directory") as caught:
            attempt(tmp_path / "reports" / "run.json")
        assert f"mkdir -p {tmp_path / 'reports'}" == caught.value.hint


def test_a_directory_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory") as caught:
        write(tmp_path, "x")
    assert str(tmp_path / "report.json") in caught.value.hint


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(OutputError, match="no regular file"):
        write(tmp_path / "pipe.json", "x")
    assert (tmp_path / "pipe.json").is_fifo()


def test_a_directory_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OutputError, match="no permission"):
        check(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("path", "name"), [("a.json", "json"), ("A.JSON", "json"), ("r.npz", "npz"), ("x.txt", "table")]
)
def test_format_of_a_suffix(path: str, name: str) -> None:
    assert format_of(Path(path)) == name


@pytest.mark.parametrize("path", ["report", "report.docx", ".json"])
def test_an_unknown_suffix_lists_the_known_ones(path: str) -> None:
    with pytest.raises(OutputError) as caught:
        format_of(Path(path))
    assert path in caught.value.message
    for entry in FORMATS.values():
        assert all(suffix in caught.value.hint for suffix in entry.suffixes)


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(OutputError) as caught:
        render(REPORTS["clean"], "docx")
    assert all(name in caught.value.hint for name in FORMATS)


def test_a_report_without_a_recording_has_no_archive() -> None:
    with pytest.raises(OutputError, match="no recording"):
        render(replace(REPORTS["clean"], recording=None), "npz")


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if entry.is_text])
@pytest.mark.parametrize("report", REPORTS)
def test_text_formats_can_be_written(name: str, report: str, tmp_path: Path) -> None:
    content = render(REPORTS[report], name, View())
    write(tmp_path / "out", content)
    assert (tmp_path / "out").read_text(encoding="utf-8") == content
