"""How a run ends, and what the settings of the loop do to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.drive.conftest import Run
from tests.drive.training import (
    Parts,
    assert_same,
    batches,
    parts,
    plain_step,
    train_by_hand,
)

Trained = Callable[..., tuple[dict[str, Tensor], Run]]


def test_one_shot_iterator_ends_early_and_the_report_says_so(trained: Trained) -> None:
    def build() -> Parts:
        return {**parts(), "dataloader": iter(batches(5))}

    state, (report, _) = trained(build, steps=50)
    assert len(report.series) == 5
    assert report.run.ended == "data-exhausted"
    assert_same(state, train_by_hand(parts, 5, plain_step))


def test_one_shot_iterator_that_just_suffices_completes(trained: Trained) -> None:
    report = trained(lambda: {**parts(), "dataloader": iter(batches(5))}, steps=5)[1][0]
    assert report.run.ended == "completed"


@pytest.mark.parametrize("chosen", [False, True])
def test_eval_keeps_the_model_in_eval_mode(trained: Trained, chosen: bool) -> None:
    modes = []

    def build() -> Parts:
        made = parts()
        made["model"].register_forward_pre_hook(lambda module, _: modes.append(module.training))
        return made

    state, (report, _) = trained(build, eval=chosen)
    assert modes == [not chosen] * 3
    assert report.run.training is not chosen
    assert bool(state["1.running_mean"].any()) is not chosen


def test_without_an_optimizer_the_weights_stay(trained: Trained) -> None:
    def build() -> Parts:
        made = parts()
        del made["optimizer"]
        return made

    state, (report, _) = trained(build, steps=5)
    before = train_by_hand(build, 0, plain_step)
    for name in ("0.weight", "0.bias", "4.weight", "4.bias"):
        assert torch.equal(state[name], before[name])
    assert not report.run.has_optimizer
    assert any("no optimizer" in note for note in report.run.notes)
    assert (report.series.grad_norm > 0).all()
    assert not {finding.code for finding in report.diagnosis.findings} & {"GC104", "GC106"}


def test_optimizer_option_makes_one(trained: Trained) -> None:
    def build() -> Parts:
        made = parts()
        made["optimizer"] = torch.optim.AdamW(made["model"].parameters(), lr=0.02)
        return made

    state, (report, _) = trained(lambda: {**parts(), "optimizer": None}, steps=5, optimizer="AdamW", lr=0.02)
    assert_same(state, train_by_hand(build, 5, plain_step))
    assert report.run.optimizer == "AdamW"


def test_optimizer_option_replaces_the_targets_and_says_so(trained: Trained) -> None:
    report = trained(parts, optimizer="adam")[1][0]
    assert report.run.optimizer == "Adam"
    assert any("--optimizer replaces" in note for note in report.run.notes)


def test_what_no_optimizer_holds_gets_each_steps_own_gradient(trained: Trained) -> None:
    """Else its gradients would add up, and look like an explosion."""

    def build() -> Parts:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model[0].parameters(), lr=1e-9)
        return {"model": model, "dataloader": batches(1), "loss_fn": nn.MSELoss(), "optimizer": optimizer}

    report = trained(build, steps=8)[1][0]
    np.testing.assert_allclose(report.series.grad_norm, report.series.grad_norm[0], rtol=1e-4)
    assert "GC106" in {finding.code for finding in report.diagnosis.findings}


def test_stop_above_ends_at_the_first_larger_norm(trained: Trained) -> None:
    def build() -> Parts:
        model = nn.Linear(3, 1)
        loader = [(inputs * (1000 if i == 3 else 1), target) for i, (inputs, target) in enumerate(batches(6))]
        return {"model": model, "dataloader": loader, "loss_fn": nn.MSELoss()}

    report = trained(build, steps=20, stop_above=1000.0)[1][0]
    assert len(report.series) == 4
    assert report.run.ended == "stop-above"
    assert report.series.grad_norm[-1] > 1000 > report.series.grad_norm[:-1].max()


@pytest.mark.parametrize(("keep_going", "steps", "ended"), [(False, 3, "nonfinite-loss"), (True, 6, "completed")])
def test_nonfinite_loss_ends_the_run_unless_told_to_go_on(
    trained: Trained, keep_going: bool, steps: int, ended: str
) -> None:
    def build() -> Parts:
        made = parts()
        made["dataloader"][2][0][0, 0] = float("nan")
        return made

    report = trained(build, steps=6, keep_going=keep_going)[1][0]
    assert len(report.series) == steps
    assert report.run.ended == ended
    assert report.exit_code == 1


def test_seed_makes_runs_repeat(trained: Trained) -> None:
    first, again, other = (trained(parts, seed=number)[0] for number in (3, 3, 4))
    assert_same(first, again)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_any_whole_number_is_a_seed(trained: Trained) -> None:
    assert trained(parts, seed=10**30)[1][0].run.seed == 10**30
