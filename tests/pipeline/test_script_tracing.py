"""nan-trace on a whole script: a first run that watches, further ones that trace and prove."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gradcheck_cli.config import Settings
from gradcheck_cli.errors import ConfigError, TargetError
from gradcheck_cli.pipeline import nan_trace
from gradcheck_cli.records import Report
from gradcheck_cli.tape import NanOrigin, NanTrace
from gradcheck_cli.targets import Script
from tests.zygote import quick_programs

LOG = """
import argparse, random
import numpy as np
import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
lr = parser.parse_args().lr
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
bad_step = random.randint(3, 6) + np.random.randint(0, 3)  # without a seed
for step in range(20):
    p = model(torch.randn(16, 4)).sigmoid()
    if step == bad_step:
        p = p * 0
    loss = -torch.log(p).mean()  # origin
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

SQRT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.layer(x).square().sum(1).sqrt()  # origin

torch.manual_seed(0)
net = Net()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step in range(8):
    x = torch.randn(5, 4)
    if step == 3:
        x[2] = 0
    loss = net(x).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

DIVERGING = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e12)
for _ in range(60):
    loss = model(torch.randn(8, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

BATCH = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
x, y = torch.randn(24, 4), torch.randn(24, 1)
x[5, 2] = float("nan")
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for x, y in DataLoader(TensorDataset(x, y), batch_size=4):
    loss = nn.functional.mse_loss(model(x), y)  # origin
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

BY_HAND = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1, bias=False)
square = torch.zeros(1, 4)
for step in range(6):
    x = torch.randn(8, 4)
    x[:, 1] = 0  # a gradient that stays 0
    loss = model(x).square().mean()
    loss.backward()
    with torch.no_grad():
        square.mul_(0.9).add_(0.1 * model.weight.grad**2)
        update = model.weight.grad / square.sqrt()  # origin
        model.weight -= 0.1 * (update if step > 1 else update.nan_to_num())
    model.weight.grad = None
"""

FP16 = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
for step in range(8):
    with torch.autocast("cpu", torch.float16):
        loss = model(torch.randn(8, 4)).float().square().mean() * 10
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
"""

BY_CLOCK = """
import os
import torch
from torch import nn

model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
seen = os.path.exists("seen")
open("seen", "w").close()
for step in range(9):
    loss = model(torch.randn(8, 4)).square().mean()
    if step == ({later} if seen else 2):
        loss = loss / torch.zeros(())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

CHECKED = """
import math
import sys
import torch
from torch import nn

model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(9):
    scores = model(torch.randn(8, 4)).square()
    if step == 4:
        scores = scores * float("inf") * 0  # origin
    loss = scores.mean()
    if not math.isfinite(loss.item()):
        print(f"Loss is {loss.item()}, stopping training")
        sys.exit(1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

Trace = Callable[..., Report]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """Write a script and trace it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "executable", f"{quick_programs()}/python")

    def run(source: str, *arguments: str, **settings: int) -> Report:
        (tmp_path / "train.py").write_text(source)
        asked = Settings(**settings) if settings else Settings(one_epoch=True)  # type: ignore[arg-type]
        report, error = nan_trace(Script("train.py", arguments), asked)
        assert error is None
        return report

    return run


def of(report: Report) -> NanTrace:
    assert report.trace is not None
    return report.trace


def only_origin(report: Report, source: str) -> NanOrigin:
    """The origin, which is verified and on the marked line."""
    assert report.exit_code == 1
    assert of(report).reproduced, of(report).notes
    (origin,) = of(report).origins
    assert origin.verified
    assert origin.frame is not None
    assert origin.frame.location.file.endswith("train.py")
    marked = next(number for number, line in enumerate(source.splitlines(), 1) if "# origin" in line)
    assert origin.frame.location.line == marked
    return origin


def test_a_log_of_0_in_a_script_without_a_seed(trace: Trace) -> None:
    report = trace(LOG, "--lr", "0.1")
    origin = only_origin(report, LOG)
    assert (origin.phase, origin.op, origin.cause, origin.spread) == ("loss", "aten::log", "log-of-zero", (4, 4))
    assert 3 <= of(report).step <= 8
    assert of(report).steps == of(report).step + 1 == origin.step + 1
    assert report.run.target == "train.py --lr 0.1"


def test_a_derivative_at_0_of_a_finite_loss(trace: Trace) -> None:
    report = trace(SQRT)
    origin = only_origin(report, SQRT)
    assert (origin.phase, origin.op, origin.step, origin.sink) == (
        "backward",
        "aten::sqrt",
        3,
        "gradient of layer.weight",
    )
    assert [finding.code for finding in report.diagnosis.findings] == ["GC302"]


def test_a_learning_rate_that_lets_it_diverge(trace: Trace) -> None:
    report = trace(DIVERGING)
    assert report.exit_code == 1
    assert of(report).reproduced
    assert of(report).origins[0].kind == "inf"


def test_nan_in_a_batch(trace: Trace) -> None:
    report = trace(BATCH)
    origin = only_origin(report, BATCH)
    assert (origin.phase, origin.source, origin.step) == ("data", "batch:[0]", 1)
    assert [finding.code for finding in report.diagnosis.findings] == ["GC304"]


def test_an_update_by_hand(trace: Trace) -> None:
    origin = only_origin(trace(BY_HAND), BY_HAND)
    assert (origin.phase, origin.op, origin.step, origin.sink) == ("optimizer", "aten::div", 2, "parameter weight")


def test_a_step_that_a_scaler_skips_is_normal(trace: Trace) -> None:
    report = trace(FP16)
    assert (of(report).clean, report.exit_code, of(report).steps) == (True, 0, 8)
    assert of(report).skipped > 0
    assert report.run.uses_scaler


def test_a_sound_script_runs_as_long_as_it_is_asked_to(trace: Trace) -> None:
    sound = SQRT.replace("step == 3", "step == 30")
    assert (of(trace(sound)).steps, of(trace(sound, steps=5)).steps) == (8, 5)


def test_a_fault_that_recurs_at_another_step(trace: Trace) -> None:
    report = trace(BY_CLOCK.format(later=5))
    assert (of(report).step, of(report).reproduced, report.exit_code) == (5, False, 1)
    assert of(report).origins[0].op == "aten::div"
    assert any("not deterministic" in note and "step 2" in note for note in report.run.notes)


def test_a_fault_that_does_not_recur(trace: Trace) -> None:
    report = trace(BY_CLOCK.format(later=99))
    assert (of(report).step, of(report).reproduced, of(report).origins) == (2, False, ())
    assert report.exit_code == 1
    assert any("not deterministic" in note for note in of(report).notes)


def test_a_script_that_looks_at_its_loss_and_ends(trace: Trace) -> None:
    report = trace(CHECKED)
    assert of(report).step == 4
    assert "sys.exit(1)" in of(report).error
    assert "the code called sys.exit over NaN made in the forward pass" in report.diagnosis.findings[0].message
    origin = of(report).origins[0]
    assert origin.frame is not None
    assert origin.frame.code.endswith("# origin")


def test_a_failure_that_has_nothing_to_do_with_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(DIVERGING.replace("1e12", "1e-3") + "raise KeyError('no such column')\n")
    report, error = nan_trace(Script(str(path)), Settings(one_epoch=True))
    assert error is not None
    assert "no such column" in error.message
    assert (of(report).clean, of(report).steps, report.exit_code) == (True, 60, 2)


def test_what_cannot_be_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="save-repro"):
        nan_trace(Script("train.py"), Settings(), save_repro=tmp_path)
    with pytest.raises(TargetError, match=r"no file missing\.py"):
        nan_trace(Script("missing.py"), Settings())


def test_it_is_watched_without_a_trace_in_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(
        SQRT.replace("step == 3", "step == 30") + f"torch.save(net.state_dict(), {str(tmp_path / 'w')!r})\n"
    )
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__"})
    bare = torch.load(tmp_path / "w")
    nan_trace(Script(str(path)), Settings(one_epoch=True))
    watched = torch.load(tmp_path / "w")
    assert all(torch.equal(bare[name], watched[name]) for name in bare)
