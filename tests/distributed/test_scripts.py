"""Scripts that make their own process group: each rank watches its own, and the recordings become one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradcheck_cli
from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import Group
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.pipeline import scripting
from gradcheck_cli.pipeline.preparation import ignore
from gradcheck_cli.records import Recording
from gradcheck_cli.targets import Script
from tests.distributed.conftest import Pool

STEPS = 8
SCRIPT = """
import sys
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

strategy, accumulate, hold = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "hold"
rank, size = 0, 1
if strategy != "alone":
    init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
inputs = torch.randn(16, 16, 6)
model = nn.Sequential(nn.Linear(6, 31), nn.Tanh(), nn.Linear(31, 1))
if strategy == "fsdp2":
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(model)
elif strategy == "ddp":
    model = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), 0.05)
for number, batch in enumerate(inputs):
    last = (number + 1) % accumulate == 0
    mine = batch.chunk(size)[rank]
    with model.no_sync() if hold and strategy == "ddp" and not last else nullcontext():
        if hold and strategy == "fsdp2":
            model.set_requires_gradient_sync(last)
        loss = (model(mine) - mine[:, :1]).square().mean() / accumulate
        loss.backward()
    if last:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
if strategy != "alone":
    destroy_process_group()
"""


def recorded(group: Group, folder: Path, *arguments: str) -> Recording:
    """Of the script with these arguments, in this process."""
    script = Script(str(folder / "train.py"), arguments=arguments)
    (recording,) = scripting.record(script, Settings(to_the_end=True, probe_every=3, timeout=60), ignore).recordings
    return recording


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_script_on_two_ranks_measures_what_it_does_on_one(ranks: Pool, folder: Path, strategy: str) -> None:
    found, also = ranks(2, recorded, folder, strategy, "2", "hold", join=False)
    expected = recorded(Group(), folder, "alone", "2", "hold")
    for name in ("loss", "grad_norm", "grad_norm_clipped"):
        assert np.allclose(getattr(found.series, name), getattr(expected.series, name), rtol=1e-5), name
    for name in ("norm", "std", "max_abs", "zero_fraction", "parameter_norm"):
        assert np.allclose(getattr(found.statistics, name), getattr(expected.statistics, name), rtol=1e-5), name
    for name in ("update_ratio", "output_rms", "output_grad_rms"):
        both = getattr(found.probes, name), getattr(expected.probes, name)
        assert np.allclose(*both, rtol=1e-5, equal_nan=True), name
    assert [one.name for one in found.parameters] == [one.name for one in expected.parameters]
    assert found.ranks is not None
    assert (found.ranks.size, found.ranks.strategy, len(found.series)) == (2, "own", STEPS)
    assert np.isfinite(found.ranks.grad_norm).all()
    assert found.ranks.syncs.tolist() == [[1, 1]] * STEPS
    assert np.array_equal(found.series.grad_norm, also.series.grad_norm)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_synchronising_every_micro_batch_is_seen(ranks: Pool, folder: Path, strategy: str) -> None:
    found, _ = ranks(2, recorded, folder, strategy, "2", "always", join=False)
    assert found.ranks is not None
    assert found.ranks.syncs.tolist() == [[2, 2]] * STEPS
    assert np.isnan(found.ranks.grad_norm).all()  # the first synchronisation has mixed them


def codes(group: Group, folder: Path, *arguments: str) -> set[str]:
    report, _ = pipeline.profile(Script(str(folder / "train.py"), arguments=arguments), Settings(to_the_end=True))
    return {finding.code for finding in report.diagnosis.findings}


@pytest.mark.parametrize(("hold", "fires"), [("hold", False), ("always", True)])
def test_missing_no_sync_is_found_in_a_script(ranks: Pool, folder: Path, hold: str, fires: bool) -> None:
    assert ("GC703" in ranks(2, codes, folder, "ddp", "2", hold, join=False)[0]) is fires


def framework(group: Group, name: str, folder: Path) -> tuple[int, str, set[str], list[str]]:
    """Ranks, how they synchronise, alarms and the names of parameters, of a script in somebody else's style."""
    before = Path.cwd()
    os.chdir(folder)  # nanoGPT reads a file that lies there, and writes one
    try:
        script = Script(f"{name}.py", ("--out", str(folder / name)) if name != "nanogpt" else ())
        report, error = pipeline.profile(script, Settings(to_the_end=True))
    finally:
        os.chdir(before)
    assert error is None
    assert report.ranks is not None
    assert report.recording is not None
    alarms = {finding.code for finding in report.diagnosis.findings if finding.severity.rank}
    return report.ranks.size, report.ranks.strategy, alarms, [one.name for one in report.recording.parameters]


@pytest.mark.parametrize("name", ["nanogpt", "accelerate_loop"])
def test_scripts_that_find_their_ranks_themselves(ranks: Pool, tmp_path: Path, name: str) -> None:
    pytest.importorskip("accelerate")
    shutil.copytree("tests/kinds/scripts", tmp_path, dirs_exist_ok=True)
    for size, strategy, alarms, names in ranks(2, framework, name, tmp_path, join=False):
        assert (size, strategy, alarms) == (2, "own", set())
        assert not any("module." in parameter or "_orig_mod" in parameter for parameter in names)


def refused(group: Group, folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        pipeline.nan_trace(Script(str(folder / "train.py")), Settings())
    return caught.value.message


def test_nan_trace_of_a_script_says_that_it_needs_one_process(ranks: Pool, folder: Path) -> None:
    assert all("no other ranks" in message for message in ranks(2, refused, folder, join=False))


def watched_shards(group: Group) -> str:
    from torch.distributed.fsdp import fully_shard

    model: Any = fully_shard(nn.Linear(3, 2))
    with pytest.raises(GradcheckError) as caught, gradcheck_cli.watch(model, torch.optim.SGD(model.parameters(), 0.1)):
        pass
    return caught.value.message


def test_watching_shards_from_within_is_refused(ranks: Pool) -> None:
    assert all("only a part" in message for message in ranks(2, watched_shards))
