"""Parameters that join the training on the way: their gradients add to the norm, which is no alarm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradcheck_cli.diagnose.joins import find_joins, split_at_joins
from gradcheck_cli.diagnose.rules import frozen_parameter, gradient_growth, gradient_spike
from gradcheck_cli.records import Recording
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.recordings import make_recording, ripple

UNFREEZING = """
import torch
from torch import nn

torch.manual_seed(0)
back = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
head, x = nn.Linear(32, 4), torch.randn(512, 20)
model, y = nn.Sequential(back, head), x[:, :4].argmax(1)
back.requires_grad_(False)
optimizer = torch.optim.AdamW(head.parameters(), 1e-2)
for step in range(80):
    if step == 30:
        back.requires_grad_(True)
        optimizer.add_param_group({"params": list(back.parameters()), "lr": 1e-3})
    rows = torch.randint(0, 512, (64,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
    optimizer.step()
"""


def released_at(step: int, growth: float = 1.0, steps: int = 80) -> Recording:
    """A head that trains from the start, and a backbone of 30 times its norm from `step` on."""
    later = np.where(np.arange(steps) < step, np.nan, 30 * ripple(steps) * np.geomspace(1, growth, steps))
    norms = {"fc1.weight": [None if np.isnan(one) else float(one) for one in later], "fc2.weight": ripple(steps)}
    return make_recording(steps=steps, norms=norms)


def test_a_released_backbone_is_no_spike_and_no_growth() -> None:
    recording = released_at(30)
    assert find_joins(recording).tolist() == [30]
    assert silent(gradient_spike.check, recording)
    assert silent(gradient_growth.check, recording)


@pytest.mark.parametrize("at", [10, 70])
def test_a_spike_before_and_after_it_is_still_one(at: int) -> None:
    recording = released_at(30)
    recording.series.grad_norm[at] *= 1000
    (found,) = findings(gradient_spike.check, recording)
    assert found.step == at
    assert found.evidence["spikes"] == [at]


def test_growth_after_it_is_still_growth() -> None:
    (found,) = findings(gradient_growth.check, released_at(30, growth=1000.0))
    assert found.evidence["steps"] == 50
    assert found.evidence["first"] > 10


def test_what_is_too_short_between_is_said() -> None:
    assert "11 steps are too few" in reasons(gradient_spike.check, released_at(10, steps=21))[0]
    assert "11 steps" in reasons(gradient_growth.check, released_at(10, steps=21))[0]


def test_an_expert_that_is_rarely_chosen_does_not_join() -> None:
    norms = {"fc1.weight": [1.0 if step in (7, 30, 31, 55) else None for step in range(80)], "fc2.weight": ripple(80)}
    assert not len(find_joins(make_recording(steps=80, norms=norms)))


def test_all_that_train_from_the_start_are_one_stretch() -> None:
    recording = make_recording()
    assert [part.tolist() for part in split_at_joins(recording, np.arange(30))] == [list(range(30))]
    assert split_at_joins(make_recording(steps=0), np.arange(0)) == []


def test_a_join_between_thinned_rows_comes_right_after_the_last_row_without() -> None:
    norms = {"fc1.weight": [None] * 43 + [1.0] * 37, "fc2.weight": ripple(80)}
    recording = make_recording(steps=80, norms=norms, recorded=range(0, 80, 10))
    assert find_joins(recording).tolist() == [41]


def test_released_parameters_are_not_called_frozen() -> None:
    norms = {"fc1.weight": [None] * 20 + [1.0] * 10}
    named = findings(frozen_parameter.check, make_recording(frozen=["fc1.weight", "fc1.bias"], norms=norms))
    assert [finding.evidence["parameters"] for finding in named] == [["fc1.bias"]]


def test_a_script_that_releases_its_backbone_gets_no_alarm(tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text(UNFREEZING)
    command = [sys.executable, "-m", "gradcheck_cli", "profile", "tune.py", "-f", "json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [finding["code"] for finding in json.loads(run.stdout)["findings"]] == []
