"""Watching steps: what is kept of them, when a window ends, and that an accelerator is not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from gradcheck_cli.drive.batches import Batch, clone
from gradcheck_cli.observe.hooks import observed
from gradcheck_cli.observe.nan import watch as module
from gradcheck_cli.observe.nan.watch import Watch

NAN, INF = float("nan"), float("inf")


@dataclass
class Training:
    """A parameter with a chosen loss and gradient in each step, watched."""

    parameter: nn.Parameter
    watch: Watch
    optimizer: torch.optim.Optimizer

    def step(self, *losses: float, batch: Any = None) -> bool:
        """One step with so many micro-batches; whether the window is over."""
        self.optimizer.zero_grad()
        for micro in self.watch.inspect(Batch(i, 0, batch) for i, _ in enumerate(losses)):
            (self.parameter.sum() * losses[micro.index]).backward()
        self.optimizer.step()
        return self.watch.end_step()


@pytest.fixture
def training(request: pytest.FixtureRequest) -> Iterator[Training]:
    model = nn.Linear(getattr(request, "param", 1), 1, bias=False)
    nn.init.ones_(model.weight)
    watch = Watch(model, clone, frozenset())
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.0))
    with observed(watch):
        yield Training(model.weight, watch, optimizer)


# When a window ends


def test_after_so_many_steps(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 3)
    assert [training.step(1.0) for _ in range(3)] == [False, False, True]
    training.watch.begin_window()
    assert [training.step(1.0) for _ in range(3)] == [False, False, True]
    assert [step.number for step in training.watch.steps] == [3, 4, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_after_so_many_bytes(training: Training, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Of batches of any dtype, images of bytes too, and however they grow."""
    monkeypatch.setattr(module, "WINDOW_BYTES", 4000)
    sizes = [100, 200, 400, 400]
    assert [training.step(1.0, batch={"x": [torch.ones(n, dtype=dtype)]}) for n in sizes] == [False, False, False, True]
    training.watch.begin_window()
    assert not training.step(1.0, batch=torch.ones(100))


def test_a_batch_larger_than_that_is_a_window(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", 4000)
    assert training.step(1.0, batch=torch.ones(2000))


def test_after_so_many_seconds(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 3))  # three seconds pass between any two looks at the clock
    monkeypatch.setattr(module, "perf_counter", lambda: next(now))
    training.watch.begin_window()
    assert training.step(1.0)


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_at_once_when_the_loss_is_bad(training: Training, loss: float) -> None:
    assert not training.step(1.0)
    assert training.step(loss)
    assert training.watch.look() == "loss"


# What is seen


def test_losses_norms_and_learning_rates(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLED", 1)
    for number in range(3):
        training.optimizer.param_groups[0]["lr"].fill_(number / 4)
        training.parameter.data.fill_(1.0)
        training.step(2.0, 4.0)
    assert training.watch.look() == ""
    seen = training.watch.history
    assert [step.loss for step in seen] == [3, 3, 3]
    assert [step.grad_norm for step in seen] == [6, 6, 6]
    assert [step.lr for step in seen] == [(0,), (0.25,), (0.5,)], "a tensor that the schedule writes to"
    assert not any(step.nonfinite or step.skipped for step in seen)


def test_losses_that_cancel(training: Training) -> None:
    """+inf and -inf in one step: their mean is NaN."""
    training.step(INF, -INF)
    assert training.watch.look() == "loss"
    assert training.watch.history[0].nonfinite


def test_a_loss_whose_memory_is_used_again(training: Training) -> None:
    """As with compiled graphs that keep their outputs in one place."""
    losses = torch.zeros(())
    for number in (1.0, 2.0):
        for _ in training.watch.inspect([Batch(0, 0, None)]):
            losses.fill_(number)
            training.watch.before_backward(losses)
        training.watch.end_step()
    training.watch.look()
    assert [step.loss for step in training.watch.history] == [1, 2]


def test_looked_at_twice_a_step_is_seen_once(training: Training) -> None:
    training.step(1.0)
    training.watch.look()
    training.watch.look()
    assert len(training.watch.history) == 1
    training.watch.begin_window()
    training.step(1.0)
    training.watch.look()
    assert [step.number for step in training.watch.history] == [0, 1]


def test_gradients_before_they_are_clipped(training: Training) -> None:
    training.parameter.sum().backward()
    for _ in training.watch.inspect([Batch(0, 0, None)]):
        training.parameter.grad = torch.full((1, 1), 8.0)
    torch.nn.utils.clip_grad_norm_([training.parameter], 1.0)
    training.optimizer.step()
    training.watch.end_step()
    training.watch.look()
    assert training.watch.history[0].grad_norm == 8


@pytest.mark.parametrize("where", ["gradient", "state"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_calls_for_a_closer_look(training: Training, where: str, value: float) -> None:
    for _ in training.watch.inspect([Batch(0, 0, None)]):
        training.parameter.sum().backward()
        if where == "gradient":
            training.parameter.grad.fill_(value)  # type: ignore[union-attr]
    training.optimizer.step()
    if where == "state":
        training.parameter.data.fill_(value)
    else:
        training.parameter.data.fill_(1.0)
    training.watch.end_step()
    certain = where == "state" or value != value
    assert training.watch.look() == (where if certain else "norm"), "finite gradients may have an infinite norm"


@pytest.mark.parametrize("training", [8], indirect=True)
def test_finite_gradients_that_overflow_are_looked_at_exactly(training: Training) -> None:
    training.step(1e30)
    assert training.watch.look() == "norm"
    training.watch.begin_window()
    training.watch.look_exactly()
    training.parameter.data.fill_(1.0)
    training.step(1e30)
    assert training.watch.look() == ""


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.float16])
def test_parameters_of_other_dtypes(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(2, 2, dtype=dtype))
    model = nn.ParameterList([parameter, nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(0))])
    watch = Watch(model, clone, frozenset())
    for value, found in ((1.0, ""), (INF, "norm"), (NAN, "gradient")):
        parameter.grad = torch.full_like(parameter, value)
        model[1].grad, model[2].grad = torch.ones(2), torch.ones(0)
        for _ in watch.inspect([Batch(0, 0, None)]):
            watch.before_backward(torch.ones(()))
        watch.before_clip([], None)
        watch.end_step()
        assert watch.look() == found
        watch.begin_window()


def test_what_was_bad_before_is_not_looked_at() -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("mask", torch.tensor([-INF]))
    for known, found in (({"buffer:mask"}, ""), (set(), "state")):
        watch = Watch(model, clone, known)
        for _ in watch.inspect([Batch(0, 0, None)]):
            watch.before_backward(torch.ones(()))
        watch.end_step()
        assert watch.look() == found


# Batches


def test_a_batch_is_kept_as_it_was_and_handed_on_itself(training: Training) -> None:
    data = {"x": torch.ones(2), "y": [torch.zeros(1)]}
    for batch in training.watch.inspect([Batch(0, 0, data)]):
        assert batch.data is data
        data["x"].zero_()  # type: ignore[union-attr]
    training.watch.end_step()
    held = training.watch.steps[0].batches[0].batch
    assert held.data["x"].tolist() == [1, 1]


# An accelerator


class FakeLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, 8, device="cuda"))
        self.register_buffer("count", torch.empty(8, device="cuda"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight)


@pytest.mark.parametrize("clipped", [False, True])
def test_steps_on_an_accelerator_wait_for_nothing(monkeypatch: pytest.MonkeyPatch, clipped: bool) -> None:
    """Any value read back from a fake tensor raises: nothing is asked of the device until the window is over."""
    with FakeTensorMode():
        model = nn.Sequential(*(FakeLinear() for _ in range(3)))
        parameters = list(model.parameters())

        def backward(*_: Any, **__: Any) -> None:  # the autograd engine needs a real device
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)

        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "backward", backward)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
            watch = Watch(model, clone, frozenset())
            with observed(watch):
                for number in range(module.WINDOW):
                    for batch in watch.inspect([Batch(number, 0, torch.empty(4, 8, device="cuda"))]):
                        with torch.no_grad():  # recording a graph needs a real device too
                            loss = model(batch.data).sum()
                        loss.backward()
                    if clipped:
                        torch.nn.utils.clip_grad_value_(model.parameters(), 1.0, foreach=False)
                    optimizer.step()
                    assert watch.end_step() == (number == module.WINDOW - 1)
        assert len(watch.steps[0].norms) == 3
        with pytest.raises(DataDependentOutputException):  # without which the test would not notice a transfer
            watch.look()


# Gradients that need no look of their own


def variants() -> list[Any]:
    """Every optimizer that is trusted to carry a bad gradient on, in every implementation, at rates of 0 too."""
    made = []
    for kind in module.STICKY:
        for lr in (0.0, 1e-3):
            for implementation in ({"foreach": False}, {"foreach": True}, {"fused": True}):
                for more in ({}, {"maximize": True}, {"weight_decay": 0.1}):
                    made.append(
                        pytest.param(
                            kind,
                            {"lr": lr, **implementation, **more},
                            id=f"{kind.__name__} {lr} {implementation} {more}",
                        )
                    )
    made += [
        pytest.param(torch.optim.SGD, {"lr": lr, "momentum": 0.9, "dampening": d}) for lr in (0, 1) for d in (0, 1)
    ]
    made += [pytest.param(torch.optim.SGD, {"lr": 0, "momentum": 0.9, "nesterov": True})]
    made += [pytest.param(kind, {"lr": 0, "amsgrad": True}) for kind in (torch.optim.Adam, torch.optim.AdamW)]
    made += [pytest.param(torch.optim.RMSprop, {"lr": 0, "centered": True, "momentum": 0.5})]
    return made


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize(("kind", "options"), variants())
def test_a_bad_gradient_stays_in_the_parameter(kind: Any, options: dict[str, Any], bad: float) -> None:
    """Also when the steps after it are healthy, so that a window's end sees it."""
    parameter = nn.Parameter(torch.ones(4))
    try:
        optimizer = kind([parameter], **options)
    except (TypeError, RuntimeError):
        pytest.skip("there is no such variant")
    for gradient in (1.0, bad, 1.0, 1.0):
        parameter.grad = torch.tensor([1.0, gradient, -1.0, 0.5])
        optimizer.step()
    assert parameter.isfinite().tolist() == [True, False, True, True]


def sampled(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[int]:
    """The steps of which norms were noted."""
    watch = Watch(model, clone, frozenset())
    with observed(watch):
        for number in range(10):
            for batch in watch.inspect([Batch(number, 0, torch.ones(1, 2))]):
                model(batch.data).sum().backward()
            optimizer.step()
            watch.end_step()
    return [step.number for step in watch.steps if step.norms]


def test_norms_are_sampled_where_a_bad_gradient_cannot_hide() -> None:
    model = nn.Linear(2, 1)
    assert sampled(torch.optim.Adam(model.parameters()), model) == [0, 8]


class Signs(torch.optim.SGD):
    """Of an Inf it makes a 1."""


@pytest.mark.parametrize("kind", [Signs, torch.optim.Rprop])
def test_norms_are_noted_in_every_step_of_another_optimizer(kind: Any) -> None:
    model = nn.Linear(2, 1)
    assert sampled(kind(model.parameters(), lr=1e-3), model) == list(range(10))


def test_norms_are_noted_in_every_step_if_a_parameter_is_in_no_group() -> None:
    model = nn.Linear(2, 1)
    assert sampled(torch.optim.SGD([model.weight], lr=1e-3), model) == list(range(10))
