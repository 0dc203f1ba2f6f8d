"""Every rule on the loop, on every sample script: each gives exactly the codes that it says, whatever the seed."""

from __future__ import annotations

import ast
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradcheck_cli.audit import LoopAudit
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rules.loop import LOOP_RULES, no_clip_with_recurrence_or_transformer
from gradcheck_cli.observe.audit.auditor import Auditor
from gradcheck_cli.records import Finding
from tests.diagnose.recordings import make_recording

SCRIPTS = sorted(path for path in Path("sample_models/scripts").glob("*.py") if path.stem != "script_data")
NEEDS_A_RECORDING = {"GC515"}
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def audit_of(script: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> LoopAudit:
    """What is seen of a script that runs as `python script.py` would run it."""
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    monkeypatch.syspath_prepend(str(script.parent))
    with Auditor() as auditor:
        runpy.run_path(str(script), run_name="__main__")
    return auditor.audit()


def findings(audit: LoopAudit) -> list[Finding]:
    recording = replace(make_recording(), audit=audit)
    outcomes = [outcome for rule in LOOP_RULES for outcome in rule.check(recording, Limits())]
    return [outcome for outcome in outcomes if isinstance(outcome, Finding)]


def expected(script: Path) -> set[str]:
    """The codes in its EXPECTED, unless they need what only a recording has."""
    assigned = next(n for n in ast.walk(ast.parse(script.read_text())) if isinstance(n, ast.AnnAssign))
    constants = (n.value for n in ast.walk(assigned) if isinstance(n, ast.Constant))
    return {str(value) for value in constants if value is not None} - NEEDS_A_RECORDING


@every_script
@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_script_gives_exactly_its_codes(script: Path, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(audit_of(script, monkeypatch, "--seed", seed))
    assert {finding.code for finding in found} == expected(script)
    for finding in found:
        assert finding.location is not None
        assert Path(finding.location.file) == script


def test_spikes_of_an_lstm_without_clip_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def measure(optimizer: Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    handle = register_optimizer_step_pre_hook(measure)
    try:
        audit = audit_of(Path("sample_models/scripts/lstm_without_clip.py"), monkeypatch)
    finally:
        handle.remove()
    recording = make_recording(steps=len(norms), grad_norm=norms, modules={"lstm": "LSTM"})
    outcomes = list(no_clip_with_recurrence_or_transformer.check.check(replace(recording, audit=audit), Limits()))
    assert [type(outcome) for outcome in outcomes] == [Finding]


def test_each_rule_has_a_script() -> None:
    """And there are sound ones."""
    sources = "".join(script.read_text() for script in SCRIPTS)
    assert all(f'"{rule.code}"' in sources for rule in LOOP_RULES)
    assert sum(not expected(script) for script in SCRIPTS) >= 5
