"""--baseline, --write-baseline and --accept, as their users type them; with it, what a gate keeps of a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gradcheck_cli import archive, baseline_file
from gradcheck_cli.baseline import Baseline, KnownFinding, Section
from gradcheck_cli.config import Settings, load_settings
from gradcheck_cli.errors import ConfigError
from gradcheck_cli.judgement import join_reports, make_report
from gradcheck_cli.judgement_baseline import open_gate
from gradcheck_cli.records import Recording, Report, RunInfo, Severity
from tests.cli.conftest import HEALTHY, Gradcheck, assert_refused
from tests.diagnose.recordings import make_recording

Write = Callable[[str], None]


def recording(*not_optimized: str, **run: Any) -> Recording:
    """With a GC106 for each parameter that no optimizer holds."""
    return make_recording(not_optimized=not_optimized, **run)


def report_on(*recordings: Recording, **settings: Any) -> Report:
    return join_reports([make_report("profile", one, Settings(**settings)) for one in recordings])


@pytest.fixture
def saved(folder: Path) -> Path:
    """A healthy run, a sick one, and a baseline of the healthy one."""
    (folder / "healthy.npz").write_bytes(archive.dumps(recording()))
    (folder / "sick.npz").write_bytes(archive.dumps(recording("fc2.weight")))
    keep(folder / "baseline.json", recording())
    return folder


def keep(path: Path, *recordings: Recording, **settings: Any) -> Baseline:
    """Write the baseline of a run, as `--write-baseline` does."""
    asked = Settings(write_baseline=str(path), **settings)
    path.write_text(open_gate("profile", asked).renew(report_on(*recordings, **settings)), encoding="utf-8")
    return baseline_file.load(path)


def judge(path: Path, *recordings: Recording, **settings: Any) -> Report:
    asked = {"baseline": str(path), **settings}
    return open_gate("profile", Settings(**asked)).judge(report_on(*recordings, **asked))


# Commands


def test_a_recording_that_is_as_it_was_passes_and_one_that_is_worse_fails(saved: Path, gradcheck: Gradcheck) -> None:
    same = gradcheck("report", "healthy.npz", "--baseline", "baseline.json")
    assert (same.returncode, same.stderr) == (0, "")
    assert "nothing" in same.stdout.partition("since the baseline")[2]
    worse = gradcheck("report", "sick.npz", "--baseline", "baseline.json", "-f", "json")
    assert worse.returncode == 1
    document = json.loads(worse.stdout)
    assert document["comparison"]["new"] == ["GC106:fc2"]
    assert document["exit_code"] == 1
    assert gradcheck("report", "sick.npz", "--baseline", "baseline.json", "--fail-on", "never").returncode == 0


def test_accepting_writes_the_reason_into_the_baseline(saved: Path, gradcheck: Gradcheck) -> None:
    before = baseline_file.load(saved / "baseline.json").sections[0]
    first = gradcheck("report", "sick.npz", "--baseline", "baseline.json", "--accept", "GC106:fc2=warmed up later, a=b")
    assert first.returncode == 0, first.stdout
    assert "baseline.json" in first.stderr
    after = baseline_file.load(saved / "baseline.json").sections[0]
    assert [(one.fingerprint, one.reason) for one in after.accepted] == [("GC106:fc2", "warmed up later, a=b")]
    assert replace(after, accepted=()) == before
    again = gradcheck("report", "sick.npz", "--baseline", "baseline.json")
    assert again.returncode == 0
    assert "warmed up later, a=b" in again.stdout


def test_commands_that_run_something_write_and_read_baselines(gradcheck: Gradcheck, folder: Path, write: Write) -> None:
    write(HEALTHY + "if __name__ == '__main__':\n    model, batches, loss, optimizer = build()\n" + LOOP)
    commands = [
        ("recommend-clip", "healthy.py:build", "--steps", "20"),
        ("nan-trace", "healthy.py:build", "--steps", "3"),
        ("audit", "train.py"),
    ]
    for command in commands:
        done = gradcheck(*command, "--write-baseline", "all.json")
        assert done.returncode == 0, done.stderr
        assert "wrote" in done.stderr
    baseline = baseline_file.load(folder / "all.json")
    assert [one.command for one in baseline.sections] == ["audit", "nan-trace", "recommend-clip"]
    again = gradcheck(*commands[2], "--baseline", "all.json")
    assert again.returncode == 0, again.stdout
    assert "nothing" in again.stdout.partition("since the baseline")[2]


def test_each_of_several_targets_has_a_baseline_of_its_own(gradcheck: Gradcheck, saved: Path) -> None:
    (saved / "gradcheck.yaml").write_text(
        "steps: 12\ntargets:\n  old: {target: 'healthy.py:build', baseline: own.json}\n"
    )
    assert gradcheck("profile", "healthy.py:build", "--steps", "12", "--write-baseline", "own.json").returncode == 0
    (section,) = baseline_file.load(saved / "own.json").sections
    former = KnownFinding("GC103:aux", Severity.ERROR, "cut off")
    (saved / "own.json").write_text(baseline_file.dumps(Baseline((replace(section, findings=(former,)),))))
    done = gradcheck("profile", "--all")
    assert done.returncode == 0, done.stderr
    assert "GC103" in done.stdout.partition("gone")[2]


LOOP = """
    for x, y in batches:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
"""


# What is refused, before anything runs


def test_a_baseline_that_is_missing_is_refused_before_the_run(folder: Path, gradcheck: Gradcheck, write: Write) -> None:
    write("raise SystemExit('it ran')")
    ended = gradcheck("profile", "train.py", "--baseline", "none.json")
    assert_refused(ended, "cannot read the baseline none.json", "--write-baseline none.json")
    assert "it ran" not in ended.stderr


def test_a_baseline_without_the_command_is_refused_with_what_to_type(saved: Path, gradcheck: Gradcheck) -> None:
    ended = gradcheck("nan-trace", "healthy.py:build", "--baseline", "baseline.json")
    assert_refused(ended, "has nothing of nan-trace", "gradcheck nan-trace TARGET --write-baseline baseline.json")


def test_accept_needs_a_baseline_a_finding_and_a_reason(saved: Path, gradcheck: Gradcheck) -> None:
    assert_refused(gradcheck("report", "sick.npz", "--accept", "GC106:fc2=why not"), "--accept needs a baseline")
    ended = gradcheck("report", "sick.npz", "--baseline", "baseline.json", "--accept", "GC106:fc2")
    assert_refused(ended, "--accept must be CODE[:LAYER]=REASON")
    before = (saved / "baseline.json").read_text()
    ended = gradcheck("report", "sick.npz", "--baseline", "baseline.json", "--accept", "GC103:fc2=why not")
    assert ended.returncode == 2
    assert "--accept GC103:fc2: this run has no such finding" in ended.stderr
    assert "there are: GC106:fc2" in ended.stderr
    assert (saved / "baseline.json").read_text() == before


def test_a_baseline_that_cannot_be_written_is_refused_before_the_run(folder: Path, gradcheck: Gradcheck) -> None:
    ended = gradcheck("profile", "healthy.py:build", "--write-baseline", "no/such/folder.json")
    assert_refused(ended, "cannot write", "there is no directory")


def test_nothing_is_written_of_a_run_that_failed(gradcheck: Gradcheck, folder: Path) -> None:
    (folder / "failing.py").write_text(
        HEALTHY.replace("data()", "broken()") + "def broken():\n    yield from data()\n    raise OSError('gone')\n"
    )
    ended = gradcheck("profile", "failing.py:build", "--steps", "500", "--write-baseline", "baseline.json")
    assert ended.returncode == 2
    assert "no baseline was written" in ended.stderr
    assert not (folder / "baseline.json").exists()


# What is kept


def test_writing_keeps_other_commands_and_what_was_accepted(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    keep(path, recording("fc2.weight"), accept=(("GC106:fc2", "on purpose"),))
    clip = Section("recommend-clip", "", baseline_file.load(path).sections[0].run)
    path.write_text(baseline_file.dumps(baseline_file.load(path).replacing("recommend-clip", [clip])))
    renewed = keep(path, recording("fc2.weight", "fc1.weight"))
    assert renewed.of("recommend-clip")[""] == clip
    section = renewed.of("profile")[""]
    assert {one.fingerprint for one in section.findings} >= {"GC106:fc2", "GC106:fc1"}
    assert [one.reason for one in section.accepted] == ["on purpose"]


def test_an_accepted_finding_that_is_gone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    keep(path, recording("fc2.weight"), accept=(("GC106", "on purpose"),))
    report = judge(path, recording())
    assert report.exit_code == 0
    assert report.comparison is not None
    assert report.comparison.gone == ("GC106:fc2",)
    assert judge(path, recording(), ignore=("GC106",)).comparison.gone == ()  # type: ignore[union-attr]


def test_a_star_in_a_layer_accepts_all_that_fit(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    section = keep(path, recording("fc2.weight", "fc1.weight"), accept=(("GC106:fc*", "both"),)).sections[0]
    assert {one.fingerprint: one.reason for one in section.accepted} == {"GC106:fc1": "both", "GC106:fc2": "both"}


def test_each_model_of_a_script_has_its_section(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    actor, critic = recording("fc2.weight", model="actor"), recording(model="critic")
    assert set(keep(path, actor, critic).of("profile")) == {"actor", "critic"}
    same = judge(path, actor, critic)
    assert same.exit_code == 0
    assert [one.comparison.known for one in (same, *same.others)] == [("GC106:fc2",), ()]  # type: ignore[union-attr]
    worse = judge(path, actor, recording("fc1.weight", model="critic"))
    assert worse.exit_code == worse.others[0].exit_code == 1
    assert worse.others[0].comparison.new == ("GC106:fc1",)  # type: ignore[union-attr]
    alone = judge(path, actor)
    assert "critic" in " ".join(alone.comparison.not_compared)  # type: ignore[union-attr]
    another = judge(path, actor, recording("fc1.weight", model="judge"))
    assert another.exit_code == 1
    assert "judge" in another.others[0].comparison.not_compared[0]  # type: ignore[union-attr]


def test_conditions_that_differ_are_told(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    keep(path, recording())
    run: RunInfo = recording().run
    comparison = judge(path, recording(precision="bf16", steps=20)).comparison
    assert comparison is not None
    told = " ".join(comparison.not_compared)
    assert f"precision is bf16 in this run and {run.precision} in the baseline" in told


# Settings


def test_settings_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "gradcheck.yaml"
    path.write_text("baseline: b.json\ntolerances: {depth-slope: 0.5, share: 30}\nseverity: {GC802: warning}\n")
    settings = load_settings({}, path)
    assert settings.baseline == "b.json"
    assert settings.tolerances == {"depth_slope": 0.5, "share": 30.0}
    path.write_text("steps: 3\ntolerances: {slope: 0.5}\n")
    with pytest.raises(ConfigError, match=r"gradcheck.yaml:2: tolerances must be depth_slope, gradient, share or max_"):
        load_settings({}, path)


def test_codes_of_shifts_can_be_ignored_and_have_another_severity(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    keep(path, recording())
    lost = recording(frozen=["fc2.weight", "fc2.bias"])
    report = judge(path, lost)
    assert report.exit_code == 1
    assert report.comparison is not None
    assert "GC804:fc2" in report.comparison.new
    assert judge(path, lost, ignore=("GC8",)).exit_code == 0
    assert judge(path, lost, severity={"GC804": Severity.WARNING}).exit_code == 0
    assert "GC804" in {rule.code for rule in report.rules}
    assert "GC804" not in {rule.code for rule in report_on(lost).rules}
