"""The verdicts of recommend-clip that sample models declare, whatever the seed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradcheck_cli import pipeline
from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.config import load_clip_settings
from gradcheck_cli.records import Severity

DECLARED = re.compile(r'^CLIP_VERDICT = "([\w-]+)"$', re.MULTILINE)
VERDICTS = {
    path: found[1]
    for path in sorted(Path("sample_models").glob("*.py"))
    if (found := DECLARED.search(path.read_text(encoding="utf-8")))
}
SPIKY = Path("sample_models/clip_spiky.py")


def advice_on(sample: Path, **flags: object) -> ClipAdvice:
    """What recommend-clip says with these flags; fails if the run itself is ill."""
    report, error = pipeline.recommend_clip(f"{sample}:build", load_clip_settings(flags))
    assert error is None
    assert report.clip is not None
    assert all(finding.severity is not Severity.ERROR for finding in report.diagnosis.findings)
    assert (report.exit_code, report.run.max_norm) == (0, None)
    return report.clip


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sample", VERDICTS, ids=lambda path: path.stem)
def test_sample_gives_its_verdict(sample: Path, seed: int) -> None:
    assert advice_on(sample, seed=seed).verdict == VERDICTS[sample]


def test_there_is_one_that_needs_clipping_and_one_that_does_not() -> None:
    assert {"clip", "not-needed"} <= set(VERDICTS.values())
    assert VERDICTS[SPIKY] == "clip"


def test_clipping_helps_the_one_that_needs_it() -> None:
    """The claim of its docstring: clipped at the value that is recommended, it ends with a lower loss."""
    runs = {run.name: run for run in advice_on(SPIKY, verify=True).verified}
    assert runs["recommended"].loss < 0.9 * runs["unclipped"].loss
    assert 0 < runs["recommended"].clip_rate < 0.1
    assert runs["recommended"].inside
