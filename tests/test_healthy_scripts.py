"""Scripts as people write them, of kinds that nothing was tuned for: none gets an alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradcheck_cli.config import Settings
from gradcheck_cli.pipeline import profile
from gradcheck_cli.records import Severity
from gradcheck_cli.targets import Script

SCRIPTS = sorted((Path(__file__).parent / "healthy_scripts").glob("*.py"))
TRUE = {"ppo": {"GC402"}}  # it is usual for PPO to clip nearly every gradient, and worth knowing


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_healthy_script_gets_no_alarm(path: Path) -> None:
    report, error = profile(Script(str(path)), Settings(to_the_end=True))
    assert error is None
    every = [report, *report.others]
    assert all(len(one.series) >= 40 and one.layers for one in every)
    alarms = {found.code for one in every for found in one.diagnosis.findings if found.severity is not Severity.INFO}
    assert alarms == TRUE.get(path.stem, set())
