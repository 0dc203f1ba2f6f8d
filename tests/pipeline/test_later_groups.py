"""A script that unfreezes layers one after the other, by `add_param_group`."""

from __future__ import annotations

from pathlib import Path

from gradcheck_cli.config import Settings
from gradcheck_cli.pipeline import profile
from gradcheck_cli.records import Severity
from gradcheck_cli.targets import Script

UNFREEZING = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
optimizer = torch.optim.SGD(model[2].parameters(), lr=0.01)
for step in range(9):
    if step == 3:
        optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.001})
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(2, (8,))).backward()
    optimizer.step()
"""


def test_its_parameters_are_optimized(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(UNFREEZING)
    report, error = profile(Script(str(path)), Settings(to_the_end=True))
    assert error is None
    assert report.recording is not None
    assert [(info.name, info.group) for info in report.recording.parameters] == [
        ("0.weight", 1),
        ("0.bias", 1),
        ("2.weight", 0),
        ("2.bias", 0),
    ]
    assert not [one for one in report.diagnosis.findings if one.severity is not Severity.INFO]
