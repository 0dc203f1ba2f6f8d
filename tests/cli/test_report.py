"""`gradcheck report`: a recorded run judged again, without torch; with it, what decides the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradcheck_cli import archive
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import ConfigError, RecordingError
from gradcheck_cli.judgement import make_report
from gradcheck_cli.records import Recording, Severity
from tests.cli.conftest import Gradcheck, assert_refused
from tests.diagnose.recordings import make_recording


@pytest.fixture
def run() -> Recording:
    """An error, GC106, and with `large=1e-3` an info, GC107."""
    return make_recording(not_optimized=["fc2.weight"])


@pytest.fixture
def recorded(run: Recording, folder: Path) -> Path:
    """The same as a file."""
    (folder / "sick.npz").write_bytes(archive.dumps(run))
    return folder / "sick.npz"


def exit_code(run: Recording, **settings: object) -> int:
    return make_report("profile", run, Settings(**{"large": 1e-3, **settings})).exit_code  # type: ignore[arg-type]


def codes(run: Recording, **settings: object) -> set[str]:
    report = make_report("profile", run, Settings(**{"large": 1e-3, **settings}))  # type: ignore[arg-type]
    return {finding.code for finding in report.diagnosis.findings}


def test_findings_of_the_recording(run: Recording) -> None:
    assert {"GC106", "GC107"} <= codes(run)


def test_fail_on_decides_the_exit_code(run: Recording) -> None:
    warning = {"severity": {"GC106": Severity.WARNING}}
    assert [exit_code(run, fail_on=level) for level in ("error", "warning", "never")] == [1, 1, 0]
    assert [exit_code(run, fail_on=level, **warning) for level in ("error", "warning", "never")] == [0, 1, 0]
    assert exit_code(run, fail_on="warning", ignore=("GC106",)) == 0, "information never fails a run"


def test_a_severity_of_ones_own_decides_too(run: Recording) -> None:
    assert exit_code(run, ignore=("GC106",)) == 0
    assert exit_code(run, ignore=("GC106",), severity={"GC107": Severity.ERROR}) == 1


def test_select_and_ignore_by_code_and_by_its_beginning(run: Recording) -> None:
    assert codes(run, select=("GC107",)) == {"GC107"}
    assert codes(run, select=("GC1",), ignore=("GC107",)) == codes(run) - {"GC107"}
    assert codes(run, ignore=("GC",)) == set()


@pytest.mark.parametrize(
    "settings",
    [{"select": ("GC999",)}, {"ignore": ("XY",)}, {"severity": {"GC1": Severity.INFO}}, {"severity": {"": "info"}}],
)
def test_a_code_that_is_none_is_no_silent_pass(run: Recording, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="there is no rule"):
        exit_code(run, **settings)


def test_report_process(gradcheck: Gradcheck, recorded: Path) -> None:
    ended = gradcheck("report", "sick.npz")
    assert ended.returncode == 1
    assert "GC106" in ended.stdout
    assert ended.stderr == ""


def test_a_depth_plot_when_asked_for(gradcheck: Gradcheck, recorded: Path) -> None:
    assert "activation RMS" in gradcheck("report", "sick.npz", "--depth-plot").stdout
    assert "activation RMS" not in gradcheck("report", "sick.npz", "--no-depth-plot").stdout


def test_report_with_a_configuration(gradcheck: Gradcheck, recorded: Path, folder: Path) -> None:
    (folder / "gradcheck.yaml").write_text("ignore: [GC106]\nlarge: 1e-3\nseverity: {GC107: error}\nformat: json\n")
    ended = gradcheck("report", "sick.npz")
    assert ended.returncode == 1
    findings = {finding["code"]: finding["severity"] for finding in json.loads(ended.stdout)["findings"]}
    assert findings["GC107"] == "error"
    assert "GC106" not in findings
    assert gradcheck("report", "sick.npz", "--fail-on", "never").returncode == 0


@pytest.mark.parametrize("name", ["missing.npz", "tiny.py"])
def test_what_is_no_recording(gradcheck: Gradcheck, name: str) -> None:
    assert_refused(gradcheck("report", name, "-o", "x.json"), "error: ", name, "hint: ", "-o run.npz")


def test_damaged_recordings_are_refused_in_words(recorded: Path) -> None:
    content = recorded.read_bytes()
    damaged = [content[:cut] for cut in range(0, len(content), 97)]
    damaged += [content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :] for at in range(0, len(content), 31)]
    messages = [message for candidate in damaged if (message := refusal_of(candidate))]
    assert len(messages) > len(damaged) / 2
    assert all(message.startswith("not a recording of gradcheck: ") for message in messages)


def refusal_of(content: bytes) -> str:
    """Why it is no recording; empty where it is one all the same: not every byte of a zip file is looked at."""
    try:
        archive.loads(content)
    except RecordingError as error:
        return error.message
    return ""


def test_a_recording_of_a_newer_format_asks_for_an_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FORMAT_VERSION", 99)
    content = archive.dumps(make_recording())
    monkeypatch.setattr(archive, "FORMAT_VERSION", 1)
    with pytest.raises(RecordingError, match="format 99 is newer") as caught:
        archive.loads(content)
    assert "upgrade" in caught.value.hint


def test_an_interrupted_or_failed_recording_still_says_so(gradcheck: Gradcheck, folder: Path) -> None:
    for ended in ("interrupted", "failed"):
        (folder / "run.npz").write_bytes(archive.dumps(make_recording(steps=3, ended=ended)))
        assert ended in gradcheck("report", "run.npz").stdout
