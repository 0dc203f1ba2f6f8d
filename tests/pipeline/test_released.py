"""A script that freezes a part, and releases it on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradcheck_cli.config import Settings
from gradcheck_cli.pipeline import profile
from gradcheck_cli.records import Report, Severity
from gradcheck_cli.targets import Script

RELEASING = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
model[0].requires_grad_(False)
optimizer = torch.optim.SGD({optimized}, lr=0.05)
for step in range(40):
    if step == 15:
        model[0].requires_grad_(True)
        {then}
    optimizer.zero_grad()
    inputs = torch.randn(32, 4)
    nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()).backward()
    optimizer.step()
"""
HEAD, ALL = "model[2].parameters()", "model.parameters()"
GIVE = 'optimizer.add_param_group({"params": list(model[0].parameters())})'


def profiled(folder: Path, optimized: str, then: str) -> Report:
    path = folder / "train.py"
    path.write_text(RELEASING.format(optimized=optimized, then=then))
    report, error = profile(Script(str(path)), Settings(to_the_end=True))
    assert error is None
    return report


@pytest.mark.parametrize(("optimized", "then"), [(HEAD, GIVE), (ALL, "pass")])
def test_what_the_optimizer_holds_by_then_is_trained(optimized: str, then: str, tmp_path: Path) -> None:
    report = profiled(tmp_path, optimized, then)
    assert not [one for one in report.diagnosis.findings if one.severity is not Severity.INFO]
    assert report.trainable_count == report.parameter_count == 58
    assert [(layer.status, bool(np.isfinite(layer.update_ratio))) for layer in report.layers] == [("ok", True)] * 2


def test_what_no_optimizer_holds_is_an_error(tmp_path: Path) -> None:
    report = profiled(tmp_path, HEAD, "pass")
    (error,) = [one for one in report.diagnosis.findings if one.severity is Severity.ERROR]
    assert (error.code, error.layer) == ("GC106", "0")


def test_what_stays_frozen_is_called_so(tmp_path: Path) -> None:
    report = profiled(tmp_path, ALL, "model[0].requires_grad_(False)")
    assert [one.code for one in report.diagnosis.findings if one.layer == "0"] == ["GC105"]
    assert report.trainable_count == 18
