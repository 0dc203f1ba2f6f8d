from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rules.loop import LOOP_RULES
from gradcheck_cli.observe.audit.auditor import Auditor
from gradcheck_cli.records import Finding
from tests.diagnose.recordings import make_recording
from tests.observe.audit.loops import SOUND


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("loop", SOUND, ids=lambda loop: loop.__name__)
def test_no_rule_says_anything(loop: Callable[[], None]) -> None:
    torch.manual_seed(0)
    with Auditor() as auditor:
        loop()
    recording = replace(make_recording(), audit=auditor.audit())
    outcomes = [outcome for rule in LOOP_RULES for outcome in rule.check(recording, Limits())]
    assert [outcome for outcome in outcomes if isinstance(outcome, Finding)] == []
