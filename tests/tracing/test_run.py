"""How a watched run ends: found, not reproduced, an error of the user's, the end of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from gradcheck_cli.drive.workload import Workload, make_workload
from gradcheck_cli.errors import UserCodeError
from gradcheck_cli.observe.nan import watch
from gradcheck_cli.tracing import run
from tests.tracing.hunts import code_of, hunt, small, traced

NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=[1, 3, 100])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """However many steps a window has, the same is found."""
    monkeypatch.setattr(watch, "WINDOW", request.param)
    return int(request.param)


# Found


def failing_at(number: int) -> Workload:
    """The batches are 1, 2, 3 and so on."""

    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).square().mean() + torch.log(number + 1 - x).square().mean()  # the line

    return small(step)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_the_first_step_that_fails(number: int, window: int) -> None:
    trace = traced(lambda: failing_at(number))
    assert (trace.step, trace.steps, trace.reproduced) == (number, number + 1, True)
    (origin,) = trace.origins
    assert (origin.op, origin.kind, origin.verified) == ("aten::log", "inf", True)
    assert "# the line" in code_of(origin)


@pytest.mark.parametrize("what", ["gradient", "parameter", "buffer"])
def test_faults_that_the_loss_does_not_show(what: str, window: int) -> None:
    """They are found in their own step, also when the window ends later."""

    def make() -> Workload:
        model = nn.Linear(3, 1)
        model.register_buffer("statistic", torch.zeros(1))
        model.calls = 0  # type: ignore[assignment]

        def step(model: nn.Module, x: Tensor) -> Tensor:
            model.calls += 1  # type: ignore[operator]
            zero = torch.tensor(float(model.calls != 3))  # type: ignore[comparison-overlap]
            if what == "buffer":
                model.statistic = torch.log(zero).reshape(1)  # fault
            if what == "gradient":
                return (model.weight.sum() * 0 + zero).sqrt() + model(x).mean()  # type: ignore[operator]  # fault
            return model(x).mean() * (1 if zero else 3e38)  # type: ignore[no-any-return]

        optimizer = torch.optim.SGD(model.parameters(), lr=1.0 if what == "parameter" else 0.0)
        batches = [torch.full((2, 3), 2.0)] * 5 if what == "parameter" else [torch.ones(2, 3)] * 5
        return make_workload({"model": model, "dataloader": batches, "training_step": step, "optimizer": optimizer})

    trace = traced(make)
    assert trace.step == 2
    assert trace.origins
    if what != "parameter":
        assert "# fault" in code_of(trace.origins[0])


def test_batches_changed_in_place_are_replayed_as_they_were(window: int) -> None:
    """The second epoch meets what the first has made of the batch."""

    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss = model(batch["x"].clone()).mean() + batch["x"].clone().log().mean()  # fault
        batch["x"].sub_(1)
        return loss

    trace = traced(lambda: small(step, [{"x": torch.full((2, 3), 2.0)}]))
    assert (trace.step, trace.origins[0].source) == (2, "")
    assert "# fault" in code_of(trace.origins[0])


def test_every_micro_batch_is_looked_at(window: int) -> None:
    trace = traced(lambda: failing_at(4), accumulate=3, steps=4)
    assert (trace.step, trace.origins[0].micro_batch) == (1, 1)


def test_micro_batches_whose_losses_cancel() -> None:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean() * 0 + (x.mean() - 1.5) * 3e38 * 10

    trace = traced(lambda: small(step), accumulate=2)
    assert trace.step == 0
    assert trace.origins


# Not reproduced


def test_a_fault_that_depends_on_a_global_is_seen_but_not_explained(window: int) -> None:
    calls = (factor for factor in [1.0, 1.0, NAN, *[1.0] * 1000])  # a generator cannot be put back

    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean() * next(calls)

    trace = traced(lambda: small(step))
    assert (trace.step, trace.reproduced, trace.origins, trace.clean) == (2, False, (), False)
    assert "the loss was not finite in step 2" in trace.notes[0]
    assert any("generators" in note for note in trace.notes)


def test_a_gradient_that_is_nan_once_only_is_not_passed_over(window: int) -> None:
    """An optimizer that takes signs hides it from the parameters; the replay does not show it either."""
    factors = (factor for factor in [1.0, 1.0, NAN, *[1.0] * 1000])

    class Signs(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": 0.1})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for parameter in self.param_groups[0]["params"]:
                parameter.data.sub_(parameter.grad.nan_to_num(0).sign(), alpha=0.1)

    def step(model: nn.Module, x: Tensor) -> Tensor:
        y = model(x)
        factor = next(factors)
        y.register_hook(lambda gradient: gradient * factor)
        return y.mean()  # type: ignore[no-any-return]

    def make() -> Workload:
        model = nn.Linear(3, 1)
        parts = {"model": model, "dataloader": [torch.ones(2, 3)] * 5, "training_step": step}
        return make_workload({**parts, "optimizer": Signs(model.parameters())})

    trace = traced(make)
    assert (trace.step, trace.reproduced, trace.clean) == (2, False, False)
    assert "a gradient was not finite in step 2" in trace.notes[0]


def test_a_parameter_that_something_else_spoils() -> None:
    calls = (number for number in range(1000))

    def step(model: nn.Module, x: Tensor) -> Tensor:
        if next(calls) == 1:
            model.bias.data.fill_(NAN)  # type: ignore[union-attr, operator]
        return model(x).mean() if not model.bias.isnan().any() else model.weight.sum()  # type: ignore[union-attr, operator]

    trace = traced(lambda: small(step), steps=3)
    assert (trace.reproduced, trace.origins, trace.clean) == (False, (), False)


def test_a_replay_that_raises_is_not_the_users_error(window: int) -> None:
    """What the step reads elsewhere is used up: the run itself did not raise."""
    calls = (factor for factor in [1.0, NAN])

    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).mean() * next(calls)

    trace = traced(lambda: small(step), steps=2)
    assert (trace.step, trace.reproduced) == (1, False)
    assert trace.notes


def test_a_replay_that_raises_does_not_end_a_healthy_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WINDOW", 2)
    calls = (number for number in range(2))

    def step(model: nn.Module, x: Tensor) -> Tensor:
        next(calls)
        return (model(x) * 2e19).sum()  # type: ignore[no-any-return]

    ending, _, hunted = hunt(lambda: small(step), steps=2)
    assert (ending.error, ending.trace.clean, len(hunted.watch.history)) == (None, True, 2)


# The user's errors


def test_an_error_that_is_not_numeric(window: int) -> None:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        if x.mean() == 4:
            raise RuntimeError("no space left")
        return model(x).mean()

    ending, _, hunted = hunt(lambda: small(step))
    assert isinstance(ending.error, UserCodeError)
    assert ending.error.message == "training failed in step 3, batch 3: RuntimeError: no space left"
    assert 'raise RuntimeError("no space left")' in ending.error.details
    assert (ending.ended, ending.trace.clean, ending.trace.steps) == ("failed", True, 3)
    assert len(hunted.watch.history) == 3


@pytest.mark.parametrize("comment", ["is nan", "singular", "non-finite"])
def test_words_in_the_users_source_do_not_make_an_error_numeric(comment: str) -> None:
    """The traceback shows source lines, and these may speak of anything."""
    source = f"def step(model, x):\n    raise RuntimeError(str(len('{comment}')))  # {comment}\n"
    scope: dict[str, Any] = {}
    import linecache

    linecache.cache["/mine/train.py"] = (len(source), None, source.splitlines(True), "/mine/train.py")
    exec(compile(source, "/mine/train.py", "exec"), scope)
    ending, _, _ = hunt(lambda: small(scope["step"]))
    assert ending.error is not None
    assert comment in ending.error.details
    assert ending.ended == "failed"


@pytest.mark.parametrize("message", ["Expected value of type int", "Expected parameter list to be a tuple"])
def test_words_that_torch_says_of_distributions_only(message: str) -> None:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        raise TypeError(message)

    ending, _, _ = hunt(lambda: small(step))
    assert ending.ended == "failed"


def test_a_fault_that_leads_to_an_error_later_is_found_first() -> None:
    """The loss of step 1 is Inf; what the user's own check says in step 3 is not numeric."""
    seen: list[float] = []

    def step(model: nn.Module, x: Tensor) -> Tensor:
        if len(seen) == 3:
            raise RuntimeError("training has gone wrong")
        seen.append(float(x[0, 0]))
        return model(x).mean() + (2 - x).log().mean().detach() * model.weight.sum()  # type: ignore[union-attr, operator]

    trace = traced(lambda: small(step, model=nn.Linear(3, 1)))
    assert trace.step == 1


def test_an_error_in_the_data_loader_replays_nothing() -> None:
    calls = [0]

    def batches() -> Iterator[Tensor]:
        yield from [torch.ones(2, 3)] * 4
        raise OSError("the disk is gone")

    def step(model: nn.Module, x: Tensor) -> Tensor:
        calls[0] += 1
        return model(x).mean()

    class Loader:
        def __iter__(self) -> Iterator[Tensor]:
            return batches()

    ending, _, _ = hunt(lambda: small(step, Loader()))  # type: ignore[arg-type]
    assert ending.error is not None
    assert "the dataloader failed in epoch 0, at batch 4: OSError: the disk is gone" in ending.error.message
    assert (ending.trace.steps, calls[0]) == (4, 4)


def test_sys_exit() -> None:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        raise SystemExit(3)

    ending, _, _ = hunt(lambda: small(step))
    assert ending.error is not None
    assert "sys.exit(3)" in ending.error.message


def test_a_loss_that_is_none() -> None:
    ending, _, _ = hunt(lambda: small(lambda model, x: None))  # type: ignore[arg-type, return-value]
    assert ending.error is not None
    assert "not a tensor" in ending.error.message


# Errors that torch raises in place of a NaN


def normal(model: nn.Module, x: Tensor) -> Tensor:
    scale = (2 - x[0, :1]) / (2 - x[0, :1])  # spoilt
    distribution = Normal(model(x), scale, validate_args=True)  # compiling anything switches the default off
    return -distribution.log_prob(torch.ones(2, 1)).mean() + 0 * scale.sum()


def probability(model: nn.Module, x: Tensor) -> Tensor:
    p = model(x).sigmoid() + (2 - x.mean()).log() * 0  # spoilt
    return functional.binary_cross_entropy(p, torch.ones(2, 1))


def inverse(model: nn.Module, x: Tensor) -> Tensor:
    matrix = torch.eye(3) * (x.mean() - 2)
    return model(x).mean() + torch.linalg.inv(matrix).sum()  # spoilt


@pytest.mark.parametrize("step", [normal, probability, inverse])
def test_an_error_over_a_bad_value_is_a_finding(step: Any, window: int) -> None:
    def shifted(model: nn.Module, x: Tensor) -> Tensor:
        return step(model, x)  # type: ignore[no-any-return]

    trace = traced(lambda: small(shifted, [torch.full((2, 3), 1.5), torch.full((2, 3), 2.0), torch.ones(2, 3)]))
    assert (trace.step, trace.reproduced) == (1, True)
    assert trace.error
    assert not trace.error.startswith("training failed"), "the exception itself: a replay numbers its step 0"
    assert "# spoilt" in code_of(trace.origins[0])


def test_an_error_before_any_operation() -> None:
    """A check of the user's own, in Python alone."""

    def step(model: nn.Module, x: Any) -> Tensor:
        if x == 1:
            raise ValueError(f"loss is {math.nan}")
        return model(torch.ones(2, 3)).mean()  # type: ignore[no-any-return]

    trace = traced(lambda: small(step, [0, 1]))
    assert (trace.step, trace.error) == (1, "ValueError: loss is nan")


# The end


def test_a_clean_run() -> None:
    ending, _, _ = hunt(lambda: failing_at(100), steps=9)
    assert (ending.trace.clean, ending.trace.steps, ending.ended) == (True, 9, "")


def test_the_series_has_a_value_for_each_step(window: int) -> None:
    _, _, hunted = hunt(lambda: failing_at(5))
    series = hunted.series()
    assert len(series.loss) == 6 or window > 6
    assert all(map(math.isfinite, series.loss[:5]))
    assert math.isinf(series.loss[5])
    assert series.batch.tolist() == [0, 1, 2, 3, 4, 5]
    assert (series.lr == 1e-3).all()


def test_the_window_is_replayed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    replays: list[int] = []
    locate = run.locate
    monkeypatch.setattr(run, "locate", lambda *given: replays.append(1) or locate(*given))
    traced(lambda: failing_at(3))
    assert replays == [1]
