"""A script's own max_norm, judged in profile and audit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradcheck_cli.audit import LoopAudit
from gradcheck_cli.clip_advice import ClipSettings
from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.clip.own_clipping import judge_own_clipping
from gradcheck_cli.judgement import make_audit_report
from gradcheck_cli.records import Recording, Severity
from tests.diagnose.clip.series import lognormal, record

MEDIAN = 1.0
AUDIT = LoopAudit(())


def script(max_norm: float | None, audit: LoopAudit | None = AUDIT) -> Recording:
    """A script whose norms lie around MEDIAN."""
    recording = record(MEDIAN * lognormal(400))
    return replace(recording, audit=audit, run=replace(recording.run, max_norm=max_norm))


def codes(recording: Recording, **chosen: tuple[str, ...]) -> list[str]:
    return [one.code for one in judge_own_clipping(recording, ClipSettings(95.0, 500), **chosen)]


@pytest.mark.parametrize(("max_norm", "expected"), [(1000.0, ["GC401"]), (0.01, ["GC402"]), (2.0, []), (None, [])])
def test_by_how_often_it_acts(max_norm: float | None, expected: list[str]) -> None:
    assert codes(script(max_norm)) == expected


def test_the_clip_of_our_own_loop_is_no_scripts() -> None:
    assert codes(script(0.01, audit=None)) == []


def test_selection_and_severity() -> None:
    assert codes(script(0.01), select=("GC5",)) == codes(script(0.01), ignore=("GC402",)) == []
    report = make_audit_report(script(0.01), Settings(severity={"GC402": Severity.ERROR}))
    assert [(one.code, one.severity) for one in report.diagnosis.findings if one.code[2] == "4"] == [
        ("GC402", Severity.ERROR)
    ]
    assert report.exit_code == 1
    assert report.layers == ()


def test_steps_that_do_not_count_are_named() -> None:
    recording = script(1000.0)
    norms = recording.series.grad_norm.copy()
    norms[200] = float("nan")
    spoiled = replace(recording, series=replace(recording.series, grad_norm=norms))
    (finding,) = judge_own_clipping(spoiled, ClipSettings(95.0, 500))
    counted, left_out = int(finding.message.split(" of ")[1].split()[0]), int(finding.message.split("(")[1].split()[0])
    assert counted + left_out == 400
