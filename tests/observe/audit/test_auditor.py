from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.optim import SGD, lr_scheduler

from gradcheck_cli.audit import LoopAudit, LoopEvent
from gradcheck_cli.observe.audit.auditor import Auditor
from tests.observe.audit.loops import SOUND, loss_of, network
from tests.observe.test_neutrality import assert_same


def audited(loop: Callable[[], None]) -> LoopAudit:
    torch.manual_seed(0)
    with Auditor() as auditor:
        loop()
    return auditor.audit()


def kinds(audit: LoopAudit) -> list[str]:
    return [event.kind for event in audit.events]


def of_kind(audit: LoopAudit, kind: str) -> list[LoopEvent]:
    return [event for event in audit.events if event.kind == kind]


def line_of(text: str) -> int:
    """The number of the only line of this file that has the text, and is not the one that asks."""
    lines = inspect.getsource(inspect.getmodule(line_of)).splitlines()  # type: ignore[arg-type]
    (found,) = [number for number, line in enumerate(lines, start=1) if line.strip() == text]
    return found


def test_events_come_in_the_order_of_the_calls_from_the_lines_that_made_them() -> None:
    def loop() -> None:
        model = network()
        optimizer = SGD(model.parameters(), 0.1)
        scheduler = lr_scheduler.StepLR(optimizer, 1)
        for _ in range(2):
            optimizer.zero_grad()
            (loss_of(model) / 4).backward()  # divided
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            scheduler.step()

    audit = audited(loop)
    step = ["backward", "clip-norm", "step", "scheduler"]
    assert kinds(audit) == [*step, "zero", *step]
    backward, clip = of_kind(audit, "backward")[0], of_kind(audit, "clip-norm")[0]
    assert (backward.reduction, backward.factor, backward.divisors) == ("mean", 0.25, (4.0,))
    assert backward.location is not None
    assert backward.location.file == "tests/observe/audit/test_auditor.py"
    assert backward.location.line == line_of("(loss_of(model) / 4).backward()  # divided")
    assert clip.limit == 0.25
    assert audit.optimizers[0].type == "SGD"
    assert audit.optimizers[0].parameters == 6
    assert len({event.site for event in of_kind(audit, "backward")}) == 1


def test_norm_and_loss_are_those_of_the_call() -> None:
    seen: list[float] = []

    def loop() -> None:
        model = network()
        loss = loss_of(model)
        loss.backward()
        seen.append(loss.item())
        seen.append(nn.utils.clip_grad_norm_(model.parameters(), 1e-3).item())
        with torch.no_grad():
            loss.zero_()

    audit = audited(loop)
    assert of_kind(audit, "backward")[0].loss == pytest.approx(seen[0])
    assert of_kind(audit, "clip-norm")[0].norm == pytest.approx(seen[1])


def test_the_cosine_of_value_clipping_is_numpys() -> None:
    pairs = []

    def loop() -> None:
        model = network()
        loss_of(model).backward()
        pairs.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().numpy())
        nn.utils.clip_grad_value_(model.parameters(), 0.02)
        pairs.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().numpy())

    (clip,) = of_kind(audited(loop), "clip-value")
    before, after = pairs
    expected = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    assert 0.3 < expected < 0.95
    assert clip.cosine == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_division_by_hand_is_seen_with_its_ratio(factor: float) -> None:
    def loop() -> None:
        model = network()
        optimizer = SGD(model.parameters(), 0.1)
        loss_of(model).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data.mul_(factor)
        optimizer.step()

    (edit,) = of_kind(audited(loop), "edit")
    assert edit.ratio == pytest.approx(factor)


def test_a_scaled_loss_is_known_whatever_is_done_with_it_after() -> None:
    def loop() -> None:
        model = network()
        optimizer = SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
        (scaler.scale(loss_of(model)) / 2).backward()
        optimizer.zero_grad()
        (loss_of(model) / 2).backward()
        scaler.scale(loss_of(model)).backward()
        scaler.step(optimizer)

    audit = audited(loop)
    assert [event.scaled for event in of_kind(audit, "backward")] == [True, False, True]
    assert [event.factor for event in of_kind(audit, "backward")] == [0.5, 0.5, 1.0]
    assert [event.scaled for event in of_kind(audit, "step")] == [True]
    assert [event.scale for event in of_kind(audit, "unscale")] == [128.0]


def test_replaced_values_are_counted() -> None:
    def loop() -> None:
        model = network()
        optimizer = SGD(model.parameters(), 0.1)
        (loss_of(model) * float("nan")).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            torch.nan_to_num(parameter.grad, out=parameter.grad)
        optimizer.step()

    (replaced,) = of_kind(audited(loop), "replace")
    assert replaced.count == sum(p.numel() for p in network().parameters())


def test_parameters_in_the_place_of_others_are_named() -> None:
    def loop() -> None:
        model = network()
        optimizer = SGD(model.parameters(), 0.1)
        model = network()
        for _ in range(2):
            loss_of(model).backward()
            optimizer.step()

    (optimizer,) = audited(loop).optimizers
    assert set(optimizer.stale) == {name for name, _ in network().named_parameters()}


def test_a_long_loop_is_kept_within_bounds_and_what_is_unlike_the_rest_is_kept() -> None:
    def loop() -> None:
        model = nn.Linear(4, 3)
        optimizer = SGD(model.parameters(), 0.01)
        for step in range(600):
            optimizer.zero_grad()
            loss_of(model).backward()
            if step == 500:
                nn.utils.clip_grad_value_(model.parameters(), 1.0)
            optimizer.step()

    audit = audited(loop)
    assert len(of_kind(audit, "step")) + sum(event.count for event in of_kind(audit, "gap")) == 600
    assert len(audit.events) < 700
    assert len(of_kind(audit, "clip-value")) == 1


def torch_methods() -> list[Any]:
    from torch.amp import GradScaler
    from torch.optim import Optimizer

    schedulers = [lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau, lr_scheduler.SequentialLR]
    return [
        *(vars(kind).get("step") for kind in schedulers),
        *(vars(Optimizer).get(name) for name in ("__init__", "zero_grad")),
        *(vars(nn.Module).get(name) for name in ("train", "eval", "zero_grad")),
        *(vars(torch.Tensor).get(name) for name in ("nan_to_num", "nan_to_num_", "backward")),
        *(vars(GradScaler).get(name) for name in ("scale", "unscale_", "step", "update")),
        *(home.clip_grad_norm_ for home in (nn.utils, nn.utils.clip_grad)),
        *(torch.nan_to_num, torch.nan_to_num_, torch.autograd.backward),
    ]


def test_nothing_is_left_even_when_the_loop_raises() -> None:
    def fail() -> None:
        assert torch_methods() != before
        with Auditor():
            loss_of(network()).backward()
            raise ZeroDivisionError

    before = torch_methods()
    with Auditor(), pytest.raises(ZeroDivisionError):
        fail()
    assert torch_methods() == before


def state_after(loop: Callable[[], None], watched: bool) -> dict[str, Any]:
    """All parameters, gradients and buffers of all modules that the loop leaves, and the random state."""
    torch.manual_seed(0)
    left: list[nn.Module] = []
    made = nn.Module.__init__

    def remember(module: nn.Module, *args: Any, **kwargs: Any) -> None:
        made(module, *args, **kwargs)
        left.append(module)

    nn.Module.__init__ = remember  # type: ignore[method-assign]
    try:
        if watched:
            with Auditor() as auditor:
                loop()
            assert auditor.audit().events
        else:
            loop()
    finally:
        nn.Module.__init__ = made  # type: ignore[method-assign]
    return {
        "weights": [dict(module.state_dict()) for module in left],
        "gradients": [[p.grad for p in module.parameters()] for module in left],
        "random": torch.get_rng_state(),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("loop", SOUND, ids=lambda loop: loop.__name__)
def test_training_is_the_same_bit_by_bit(loop: Callable[[], None]) -> None:
    assert_same(state_after(loop, watched=True), state_after(loop, watched=False))


def test_no_event_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors of an accelerator raise when they are asked for a value."""
    with FakeTensorMode():
        weights = [nn.Parameter(torch.empty(*shape, device="cuda")) for shape in ((4, 3), (3,))]

        def backward(*_: Any, **__: Any) -> None:
            for weight in weights:
                weight.grad = torch.empty_like(weight)

        monkeypatch.setattr(torch.autograd, "backward", backward)
        optimizer = SGD(weights, 0.1)
        with Auditor():
            for _ in range(2):
                optimizer.zero_grad()
                torch.empty((), device="cuda").backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                nn.utils.clip_grad_value_(weights, 1.0)
                for weight in weights:
                    assert weight.grad is not None
                    weight.grad.nan_to_num_()
                optimizer.step()
        with pytest.raises(DataDependentOutputException):
            torch.empty((), device="cuda").item()
