"""--check-scale on real training: what it measures, and that it changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradcheck_cli.diagnose.rules.loss_scale_mismatch import find_derivative
from gradcheck_cli.examination import ScaleCheck
from gradcheck_cli.records import Finding, Report
from tests.drive.training import Parts, assert_same, parts, samples, state_of

Profile = Callable[..., Any]


def smooth() -> Parts:
    """A network of smooth functions with dropout, without BatchNorm."""
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 1))
    inputs, targets = samples(40)
    data = list(zip(inputs.split(8), targets.split(8), strict=True))
    return {
        "model": model,
        "dataloader": data,
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
    }


def scale_of(report: Report) -> ScaleCheck:
    assert report.recording
    assert report.recording.examination
    assert report.recording.examination.scale
    return report.recording.examination.scale


def ratio_of(report: Report) -> float:
    found = find_derivative(scale_of(report))
    assert found, scale_of(report)
    return scale_of(report).grad_norm / found.value


def mismatches(report: Report) -> list[Finding]:
    return [finding for finding in report.diagnosis.findings if finding.code == "GC611"]


@pytest.mark.parametrize(
    "settings", [{}, {"accumulate": 3}, {"clip": 0.01}, {"precision": "bf16"}, {"precision": "fp16"}, {"eval": True}]
)
@pytest.mark.parametrize("build", [smooth, parts], ids=["dropout", "batch norm and dropout"])
def test_a_sound_gradient_is_that_of_its_loss(profile: Profile, build: Callable[[], Parts], settings: Any) -> None:
    report, error = profile(build, steps=7, check_scale=True, device="cpu", **settings)
    assert error is None
    low = settings.get("precision") in ("bf16", "fp16")
    assert ratio_of(report) == pytest.approx(1, rel=0.03 if low else 0.01)
    assert not mismatches(report)


@pytest.mark.parametrize(("factor", "named"), [(1024.0, "2^10"), (1 / 64, "2^-6"), (5.0, "not that")])
def test_a_factor_in_a_hook_is_found(profile: Profile, factor: float, named: str) -> None:
    def build() -> Parts:
        made = smooth()
        for parameter in made["model"].parameters():
            parameter.register_hook(lambda gradient: factor * gradient)
        return made | {"optimizer": torch.optim.SGD(made["model"].parameters(), lr=1e-5)}

    report, _ = profile(build, steps=3, check_scale=True)
    assert ratio_of(report) == pytest.approx(factor, rel=0.01)
    (found,) = mismatches(report)
    assert named in found.message


def test_accumulated_gradients_that_were_summed_are_found(profile: Profile) -> None:
    class Undone(torch.autograd.Function):
        """Takes back the division of the loss by the number of accumulated batches."""

        @staticmethod
        def forward(ctx: Any, loss: Tensor) -> Tensor:
            return loss.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 3 * gradient

    def step(model: nn.Module, batch: Any) -> Tensor:
        return Undone.apply(nn.functional.mse_loss(model(batch[0]), batch[1]))

    def build() -> Parts:
        return smooth() | {"loss_fn": None, "training_step": step}

    report, _ = profile(build, steps=3, check_scale=True, accumulate=3)
    (found,) = mismatches(report)
    assert "accumulated batches" in found.message


def test_it_is_measured_only_when_asked_for(profile: Profile) -> None:
    report, _ = profile(smooth)
    assert report.recording.examination.scale is None


def everything(made: Parts) -> dict[str, Tensor]:
    """All that training changes, and the random states."""
    gradients = {f"gradient {n}": p.grad.clone() for n, p in made["model"].named_parameters() if p.grad is not None}
    drawn = torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))], dtype=torch.float64)
    momentum = {f"momentum {i}": s["momentum_buffer"] for i, s in enumerate(made["optimizer"].state.values())}
    return {**state_of(made), **gradients, **momentum, "drawn": drawn}


def test_afterwards_everything_is_as_without_it(profile: Profile) -> None:
    kept: list[Parts] = []

    def build() -> Parts:
        kept.append(parts())
        return kept[-1]

    states, series = [], []
    for check in (False, True):
        report, _ = profile(build, steps=8, check_scale=check)
        states.append(everything(kept[-1]))
        series.append(report.series)
    assert_same(*states)
    assert np.array_equal(series[0].grad_norm, series[1].grad_norm)
    assert not kept[-1]["model"][0]._forward_hooks


@pytest.mark.parametrize(
    ("error", "reason"), [(RuntimeError("three are enough"), "three are enough"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_error_in_it_is_a_reason(profile: Profile, error: BaseException, reason: str) -> None:
    calls = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise error
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    report, failed = profile(lambda: smooth() | {"loss_fn": None, "training_step": step}, steps=3, check_scale=True)
    assert failed is None
    assert report.run.ended == "completed"
    assert reason in scale_of(report).reason
    assert [one.code for one in report.diagnosis.not_evaluated if reason in one.reason] == ["GC611"]


def test_a_run_that_failed_is_not_checked(profile: Profile) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        seen.append(1)
        assert len(seen) != 3
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    seen: list[int] = []
    report, error = profile(lambda: smooth() | {"loss_fn": None, "training_step": step}, steps=5, check_scale=True)
    assert error is not None
    assert scale_of(report).reason == "the run failed"


def test_without_a_gradient_there_is_nothing_to_compare(profile: Profile) -> None:
    def build() -> Parts:
        made = smooth()
        made["dataloader"] = [(torch.full((4, 3), float("nan")), torch.zeros(4, 1))]
        return made

    report, _ = profile(build, steps=3, check_scale=True)
    assert "nan" in scale_of(report).reason
