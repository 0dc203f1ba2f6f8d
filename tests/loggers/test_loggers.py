"""Loggers write what the recording has, at once, and never stand in the way of a run."""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradcheck_cli import pipeline
from gradcheck_cli.config import Settings
from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.records import Recording, Report
from gradcheck_cli.targets import Script
from tests.loggers.readers import read_lines, read_scalars
from tests.zygote import quick_programs

TARGET = """
import os, pathlib, torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(4, 6).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8))
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.body(self.frozen(x)) * self.scale

def build(fail_at=None, fail="raise"):
    pathlib.Path("built").touch()
    model, steps = Net(), []

    def training_step(model, batch):
        steps.append(batch)
        if len(steps) - 1 == fail_at:
            if fail == "kill":
                os.kill(os.getpid(), 9)
            if fail == "raise":
                raise ValueError("out of data")
            return model(batch).sum() * float(fail)
        return model(batch).square().sum(1).mean()

    groups = [{"params": model.body.parameters(), "lr": 0.1}, {"params": [model.scale], "lr": 0.2}]
    batches = [torch.randn(5, 4) for _ in range(10)]
    return {"model": model, "dataloader": batches, "training_step": training_step, "optimizer": torch.optim.SGD(groups)}
"""
MEASURED = {"grad_norm", "grad_rms", "grad_max", "zero_fraction", "parameter_norm"}
PROBED = {"update_ratio", "output_rms", "output_grad_rms"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory, with a target in it."""
    (tmp_path / "target.py").write_text(TARGET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def profile(*log: str, **settings: Any) -> tuple[Report, GradcheckError | None]:
    chosen = Settings(**{"steps": 12, "probe_every": 5, "log": log, **settings})
    return pipeline.profile("target.py:build", chosen)


def recorded(report: Report) -> Recording:
    assert report.recording is not None
    return report.recording


def layers_of(recording: Recording, step: int) -> dict[str, dict[str, float]]:
    """What a step's line should have of each layer: put together from the recording's single parameters."""
    statistics, probes = recording.statistics, recording.probes
    found: dict[str, dict[str, float]] = {}
    for name in {parameter.module for parameter in recording.parameters}:
        every = [i for i, parameter in enumerate(recording.parameters) if parameter.module == name]
        layer = found[name] = {"parameter_norm": joint(statistics.parameter_norm[step, every])}
        own = [i for i in every if statistics.has_gradient[step, i]]
        sizes = [recording.parameters[i].numel for i in own]
        if own:
            layer["grad_norm"] = joint(statistics.norm[step, own])
            layer["grad_rms"] = layer["grad_norm"] / np.sqrt(sum(sizes))
            layer["grad_max"] = float(statistics.max_abs[step, own].max())
            layer["zero_fraction"] = float(np.average(statistics.zero_fraction[step, own], weights=sizes))
        if step in probes.steps:
            row = probes.steps.tolist().index(step)
            trained = [i for i in every if np.isfinite(probes.update_ratio[row, i])]
            norms = statistics.parameter_norm[step, trained]
            if trained:
                layer["update_ratio"] = joint(probes.update_ratio[row, trained] * norms) / joint(norms)
            module = next(module for module in recording.modules if module.name == name)
            for key in ("output_rms", "output_grad_rms") if module.probe is not None else ():
                if np.isfinite(value := getattr(probes, key)[row, module.probe]):
                    layer[key] = float(value)
    return found


def joint(norms: np.ndarray) -> float:
    return float(np.linalg.norm(norms))


def scalars_of(recording: Recording, step: int) -> dict[str, float]:
    """A step by the tags that curves have."""
    series = recording.series
    single = {
        name: float(getattr(series, name)[step]) for name in ("loss", "grad_norm", "grad_norm_clipped", "skipped")
    }
    rates = {f"lr/{group}": rate for group, rate in enumerate(series.lr[step])}
    layers = layers_of(recording, step).items()
    return {
        **single,
        **rates,
        **{f"layer/{key}/{name}".rstrip("/"): v for name, row in layers for key, v in row.items()},
    }


# What is written


def test_lines_are_what_the_recording_has(folder: Path) -> None:
    report, _ = profile("jsonl:steps.jsonl", clip=0.5)
    recording, lines = recorded(report), read_lines(folder / "steps.jsonl")
    series = recording.series
    assert [line["step"] for line in lines] == list(range(12))
    for step, line in enumerate(lines):
        assert (line["model"], line["skipped"], line["loss_scale"]) == ("", False, None)
        assert line["loss"] == series.loss[step]
        assert (line["grad_norm"], line["grad_norm_clipped"]) == (
            series.grad_norm[step],
            series.grad_norm_clipped[step],
        )
        assert line["lr"] == series.lr[step].tolist() == [0.1, 0.2]
        expected = layers_of(recording, step)
        assert line["layers"].keys() == expected.keys() == {"", "frozen", "body.0", "body.2", "unused"}
        for name, layer in line["layers"].items():
            assert layer == pytest.approx(expected[name], rel=1e-12)
    assert set(lines[0]["layers"]["body.0"]) == MEASURED | PROBED
    assert set(lines[4]["layers"]["body.0"]) == MEASURED
    assert set(lines[4]["layers"]["frozen"]) == set(lines[4]["layers"]["unused"]) == {"parameter_norm"}


def test_tensorboard_reads_what_the_recording_has(folder: Path) -> None:
    report, _ = profile("tensorboard:board", clip=0.5)
    recording, seen = recorded(report), read_scalars(folder / "board")
    expected: dict[str, dict[int, float]] = {}
    for step in range(12):
        for tag, value in scalars_of(recording, step).items():
            expected.setdefault(f"gradcheck/{tag}", {})[step] = value
    assert seen.keys() == expected.keys() > {"gradcheck/grad_norm", "gradcheck/layer/grad_rms/body.0"}
    for tag, curve in expected.items():
        assert seen[tag] == pytest.approx(curve, rel=1e-6), tag  # float32


def test_what_is_not_finite_is_strict_json_and_a_curve(folder: Path) -> None:
    report, _ = profile("jsonl:steps.jsonl", "tensorboard:board", set={"fail_at": 4, "fail": "nan"})
    *_, last = lines = read_lines(folder / "steps.jsonl")
    assert len(lines) == len(report.series) == 5
    assert last["loss"] == last["grad_norm"] == last["layers"]["body.0"]["grad_max"] == "NaN"
    assert np.isnan(read_scalars(folder / "board")["gradcheck/loss"][4])


def test_loss_scale_and_skipped_steps_are_told(folder: Path) -> None:
    report, _ = profile("jsonl:steps.jsonl", precision="fp16", set={"fail_at": 2, "fail": "1e6"})
    series, lines = recorded(report).series, read_lines(folder / "steps.jsonl")
    assert [line["loss_scale"] for line in lines] == series.loss_scale.tolist()
    assert [line["skipped"] for line in lines] == series.skipped.tolist()
    assert lines[2]["skipped"]  # of its own; the first ones for a scale that is too large
    assert not lines[-1]["skipped"]


def test_a_loss_that_nobody_saw_is_not_made_up(folder: Path) -> None:
    """A script that calls torch.autograd.grad has no loss that is known."""
    script = folder / "train.py"
    script.write_text(
        "import torch\n"
        "model = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "for _ in range(3):\n"
        "    loss = model(torch.ones(2, 3)).sum()\n"
        "    for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters()))):\n"
        "        p.grad = g\n"
        "    optimizer.step()\n"
    )
    pipeline.profile(Script(str(script)), Settings(log=("jsonl:steps.jsonl",), to_the_end=True))
    assert [line["loss"] for line in read_lines(folder / "steps.jsonl")] == [None] * 3


def test_each_model_of_a_script_under_its_own_name(folder: Path) -> None:
    (folder / "gan.py").write_text(
        "import torch\n"
        "def train():\n"
        "    generator, critic = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)\n"
        "    ours = torch.optim.SGD(generator.parameters(), lr=0.1)\n"
        "    theirs = torch.optim.SGD(critic.parameters(), lr=0.2)\n"
        "    for _ in range(4):\n"
        "        noise = torch.randn(5, 2)\n"
        "        for optimizer, sign in ((theirs, 1), (theirs, 1), (ours, -1)):\n"
        "            optimizer.zero_grad()\n"
        "            (sign * critic(generator(noise)).mean()).backward()\n"
        "            optimizer.step()\n"
        "train()\n"
    )
    log = ("jsonl:steps.jsonl", "tensorboard:board")
    report, _ = pipeline.profile(Script("gan.py"), Settings(log=log, to_the_end=True))
    lines = read_lines(folder / "steps.jsonl")
    models = {one.run.model: one.series for one in (report, *report.others)}
    assert models.keys() == {"generator", "critic"}
    for name, series in models.items():
        own = [line for line in lines if line["model"] == name]
        assert [line["step"] for line in own] == list(range(len(series)))
        assert [line["grad_norm"] for line in own] == series.grad_norm.tolist()
        curve = read_scalars(folder / "board" / name)["gradcheck/grad_norm"]
        assert list(curve.values()) == pytest.approx(series.grad_norm.tolist(), rel=1e-6)


def test_runs_that_verify_are_not_logged(folder: Path) -> None:
    settings = Settings(steps=12, log=("jsonl:steps.jsonl",), verify=True, verify_against=("1.0",))
    report, _ = pipeline.recommend_clip("target.py:build", settings)
    assert report.clip is not None
    assert report.clip.verified
    assert [line["step"] for line in read_lines(folder / "steps.jsonl")] == list(range(12))


# When it is written


def test_every_step_is_there_at_once(folder: Path) -> None:
    """A run that is killed leaves whole lines, of all steps that were done."""
    import subprocess

    options = ["--steps", "20", "--set", "fail_at=7", "--set", "fail=kill", "--log", "jsonl:steps.jsonl"]
    command = [
        f"{quick_programs()}/gradcheck",
        "profile",
        "target.py:build",
        *options,
        "--log",
        "tensorboard:board",
    ]
    ended = subprocess.run(command, capture_output=True, cwd=folder, check=False)
    assert ended.returncode == -9
    assert [line["step"] for line in read_lines(folder / "steps.jsonl")] == list(range(7))
    assert list(read_scalars(folder / "board")["gradcheck/loss"]) == list(range(7))


def test_steps_before_a_failure_are_kept(folder: Path) -> None:
    _, error = profile("jsonl:steps.jsonl", set={"fail_at": 3})
    assert error is not None
    assert len(read_lines(folder / "steps.jsonl")) == 3


def test_a_full_disk_ends_the_log_and_not_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "steps.jsonl").write_text("an old file, which is replaced\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))  # writes end in the middle of a line
    try:
        report, error = profile("jsonl:steps.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (error, len(report.series)) == (None, 12)
    lines = read_lines(folder / "steps.jsonl")
    assert 0 < len(lines) < 12
    (note,) = [note for note in report.run.notes if "--log" in note]
    assert note in capsys.readouterr().err


# What may be asked for


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("tensorbord:x", "did you mean tensorboard"),
        ("syslog", "jsonl:PATH"),
        ("jsonl", "--log jsonl:PATH"),
        ("jsonl:", "--log jsonl:PATH"),
        ("jsonl:absent/steps.jsonl", "there is no directory"),
        ("jsonl:.", "it is a directory"),
        ("tensorboard:target.py", "it is a file"),
        ("tensorboard:absent/board", "there is no directory"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_run(folder: Path, request_: str, words: str) -> None:
    with pytest.raises(GradcheckError) as raised:
        profile(request_)
    assert words in raised.value.message + raised.value.hint
    assert not (folder / "built").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_an_absent_library_is_named_before_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GradcheckError) as raised:
        profile(f"{name}:x")
    assert f"gradcheck_cli[{name}]" in raised.value.hint
    assert not (folder / "built").exists()


def test_nothing_is_made_for_a_run_without_a_step(folder: Path) -> None:
    with pytest.raises(GradcheckError):
        profile("jsonl:steps.jsonl", "tensorboard:board", set={"fail_at": 0})
    assert not (folder / "steps.jsonl").exists()
    assert not (folder / "board").exists()


# Neutrality


def test_training_is_bit_for_bit_the_same(folder: Path) -> None:
    def state(*log: str) -> list[Any]:
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        report, _ = profile(*log)
        recording = recorded(report)
        return [
            recording.series.loss.tobytes(),
            recording.final_parameter_norm.tobytes(),
            torch.get_rng_state().numpy().tobytes(),
            str(np.random.get_state()),
            random.getstate(),
        ]

    assert state("jsonl:steps.jsonl", "tensorboard:board") == state()


@pytest.mark.parametrize("make", [lambda: "jsonl:steps.jsonl", lambda: "tensorboard:board"])
def test_a_target_may_change_its_directory(folder: Path, make: Callable[[], str]) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "target.py").write_text(TARGET.replace("model, steps =", 'os.chdir("elsewhere")\n    model, steps ='))
    profile(make())
    assert [path.name for path in (folder / "elsewhere").iterdir()] == []
