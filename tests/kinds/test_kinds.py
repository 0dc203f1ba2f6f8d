"""Scripts of nine kinds, run unmodified by all three commands: seen as they log it themselves, and not disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gradcheck_cli import pipeline
from gradcheck_cli.config import load_clip_settings, load_script_settings, load_trace_settings
from gradcheck_cli.records import Report, Severity
from gradcheck_cli.report.json_document import render_json
from gradcheck_cli.report.view import View
from tests.kinds.conftest import End, assert_same_end, script_of, sick_script_of
from tests.kinds.kinds import BAD_STEP, KINDS, SCRIPTS, Kind

Bare = Callable[[Kind], End]
every = pytest.mark.parametrize("kind", KINDS, ids=str)
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the frameworks


def sections(report: Report, kind: Kind) -> dict[str, Report]:
    """The reports on the models, by their names."""
    found = {one.run.model: one for one in (report, *report.others)}
    assert tuple(found) == kind.models
    return found


def assert_as_logged(found: dict[str, Report], kind: Kind, end: End) -> None:
    """Losses and norms, before and after clipping, are those that the script wrote down of these steps."""
    for name, one in found.items():
        rows = np.array(end["rows"][name])
        assert len(rows) == kind.steps
        seen = one.series.loss, one.series.grad_norm, one.series.grad_norm_clipped
        np.testing.assert_allclose(np.transpose(seen), rows[: len(one.series)], rtol=kind.tolerance)


@every
def test_profile_sees_what_the_script_logs(kind: Kind, bare: Bare, tmp_path: Path) -> None:
    report, error = pipeline.profile(script_of(kind, tmp_path / "out"), load_script_settings({}))
    assert error is None
    assert_same_end(tmp_path / "out", bare(kind))
    found = sections(report, kind)
    assert_as_logged(found, kind, bare(kind))
    assert {len(one.series) for one in found.values()} == {kind.steps}
    assert report.exit_code == 0
    assert {finding.severity for one in found.values() for finding in one.diagnosis.findings} <= {Severity.INFO}
    assert all(one.run.ended == "completed" and one.run.training for one in found.values())
    run = report.run
    assert (run.precision, run.optimizer, run.max_norm) == (kind.precision, kind.optimizer, kind.max_norm)
    assert run.accumulate == kind.accumulate
    assert report.series.batch.tolist() == list(kind.batches or [-1] * kind.steps)


@every
def test_profile_stops_after_some_steps(kind: Kind, bare: Bare, tmp_path: Path) -> None:
    report, error = pipeline.profile(script_of(kind, tmp_path / "out"), load_script_settings({"steps": 4}))
    assert error is None
    assert not (tmp_path / "out").exists()
    found = sections(report, kind)
    assert_as_logged(found, kind, bare(kind))
    assert sorted(len(one.series) for one in found.values()) == [3, 4][-len(found) :]


@every
def test_profile_fails_for_a_sick_one(kind: Kind, tmp_path: Path) -> None:
    report, error = pipeline.profile(sick_script_of(kind, tmp_path / "out"), load_script_settings({}))
    assert error is None
    assert report.exit_code == 1
    findings = {finding.code: finding for finding in sections(report, kind)[kind.sick].diagnosis.findings}
    assert findings[kind.code].severity is Severity.ERROR
    assert findings[kind.code].step == BAD_STEP


@every
def test_recommend_clip_advises_on_the_norms_before_the_clip(kind: Kind, bare: Bare, tmp_path: Path) -> None:
    report, error = pipeline.recommend_clip(script_of(kind, tmp_path / "out"), load_clip_settings({}, of_script=True))
    assert error is None
    assert_same_end(tmp_path / "out", bare(kind))
    assert report.exit_code == 0
    for name, one in sections(report, kind).items():
        norms, advice = np.array(bare(kind)["rows"][name])[:, 1], one.clip
        assert advice is not None
        assert advice.steps == kind.steps
        np.testing.assert_allclose(advice.norms, norms[advice.warmup_excluded :], rtol=kind.tolerance)
        if kind.steps < 100:
            assert advice.verdict == "insufficient-data"
            assert (advice.steps_needed or 0) > kind.steps
        else:
            assert advice.verdict == "not-needed"
            assert np.quantile(norms, 0.9) < (advice.max_norm or 0) < norms.max()


@every
def test_nan_trace_finds_nothing_in_a_sound_one(kind: Kind, bare: Bare, tmp_path: Path) -> None:
    report, error = pipeline.nan_trace(script_of(kind, tmp_path / "out"), load_trace_settings({}))
    assert error is None
    assert_same_end(tmp_path / "out", bare(kind))
    assert report.trace is not None
    assert (report.trace.clean, report.trace.steps, report.trace.origins) == (True, kind.steps, ())
    assert (report.exit_code, report.diagnosis.findings) == (0, ())
    assert all(f"{name} ({kind.steps} steps)" in " ".join(report.run.notes) for name in kind.models[1:])


@every
def test_nan_trace_finds_the_origin_in_a_sick_one(kind: Kind, tmp_path: Path) -> None:
    report, error = pipeline.nan_trace(sick_script_of(kind, tmp_path / "out"), load_trace_settings({}))
    assert error is None
    assert (report.exit_code, report.run.model) == (1, kind.sick)
    assert report.trace is not None
    assert (report.trace.step, report.trace.reproduced, report.trace.notes) == (BAD_STEP, True, ())
    (origin,) = report.trace.origins
    assert (origin.phase, origin.op, origin.cause) == (kind.phase, kind.op, kind.cause)
    assert (origin.step, origin.micro_batch, origin.verified) == (BAD_STEP, kind.micro_batch, True)
    (finding,) = report.diagnosis.findings
    assert (finding.code, finding.step) == (kind.code, BAD_STEP)
    assert finding.location is not None
    lines = (SCRIPTS / f"{kind}.py").read_text().splitlines()
    marked = next(number for number, line in enumerate(lines, 1) if line.endswith("# origin"))
    assert (Path(finding.location.file).name, finding.location.line) == (f"{kind}.py", marked)
    shown = render_json(report, View())
    assert "_orig_mod" not in shown  # what torch.compile puts into names
