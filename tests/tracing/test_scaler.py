"""Steps that a GradScaler skips are normal, unless the loss scale collapses or fp32 overflows, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.observe.nan import watch
from tests.tracing.hunts import code_of, hunt, small, traced


@pytest.fixture(params=[1, 4, 100], autouse=True)
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WINDOW", request.param)


def loud(factor: float) -> Any:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean() * factor  # type: ignore[no-any-return]

    return step


def test_skipped_first_steps_are_silent() -> None:
    """65536 · 16 is beyond half precision's 65504; halved often enough, it is not."""
    ending, session, hunted = hunt(lambda: small(loud(16.0)), precision="fp16", steps=14)
    assert ending.error is None
    assert ending.trace.clean
    assert 0 < ending.trace.skipped < 14
    assert ending.trace.skipped == sum(step.skipped for step in hunted.watch.history)
    assert not hunted.watch.history[-1].skipped
    assert session.scaler.get_scale() < 65536


def test_a_scale_that_collapses_is_found() -> None:
    """The gradient itself does not fit into half precision."""

    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().sum() * 1e6  # type: ignore[no-any-return]

    trace = traced(lambda: small(step), precision="fp16", steps=40)
    assert not trace.clean
    assert any("loss scale has fallen below 1" in note for note in trace.notes)
    assert trace.skipped > 5
    assert trace.origins


def test_an_overflow_that_fp32_has_too_is_found_at_once() -> None:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        return (model(x) * 0).float().sqrt().sum()  # slope

    trace = traced(lambda: small(step), precision="fp16")
    assert trace.step == 0
    assert any("not finite in fp32 either" in note for note in trace.notes)
    assert (trace.origins[0].op, trace.origins[0].phase) == ("aten::sqrt", "backward")
    assert "# slope" in code_of(trace.origins[0])


def test_a_bad_loss_is_found_although_the_step_is_skipped() -> None:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).float().mean() + (x.mean() - 3).log()  # type: ignore[no-any-return]  # loss

    trace = traced(lambda: small(step, [torch.full((2, 3), n) for n in (4.0, 5.0, 3.0)]), precision="fp16")
    assert trace.step == 2
    assert trace.origins[0].op == "aten::log"


def test_a_skipped_step_counts_neither_for_the_schedule() -> None:
    def make() -> Workload:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        return make_workload(
            {
                "model": model,
                "dataloader": [torch.ones(2, 3)] * 7,
                "training_step": loud(16.0),
                "optimizer": optimizer,
                "scheduler": LambdaLR(optimizer, lambda _: 1.0),
            }
        )

    ending, session, _ = hunt(make, precision="fp16")
    assert ending.trace.skipped
    assert session.workload.scheduler.last_epoch == 7 - ending.trace.skipped
