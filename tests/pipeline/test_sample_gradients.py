"""The samples of the worst step: what is measured of them, with which weights, and when it can't be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradcheck_cli.examination import SampleGradients
from gradcheck_cli.records import Report
from tests.drive.training import Parts, assert_same, state_of

Profile = Callable[..., Any]
SPIKE, ROW, SIZE = 12, 5, 16


def data(factor: float = 200.0, size: int = SIZE) -> list[tuple[Tensor, Tensor]]:
    """Batches of (inputs, targets); in the one at SPIKE the target at ROW is far off."""
    draw = torch.Generator().manual_seed(3)
    inputs = torch.randn(20 * size, 4, generator=draw)
    targets = inputs.sum(1, keepdim=True) + 0.3 * torch.randn(20 * size, 1, generator=draw)
    targets[SPIKE * size + ROW] *= factor
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def parts(**other: Any) -> Parts:
    model = other.pop("model", None) or nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    return {"model": model, "dataloader": data(), "loss_fn": nn.MSELoss(), "optimizer": optimizer, **other}


def not_vectorised(model: nn.Module, batch: Any) -> Tensor:
    """A training step that looks at its values, which torch.func can't."""
    loss = nn.functional.mse_loss(model(batch[0]), batch[1])
    assert loss.item() >= 0
    return loss


def samples_of(report: Report) -> SampleGradients | None:
    assert report.recording
    assert report.recording.examination
    return report.recording.examination.samples


def measured(profile: Profile, build: Callable[[], Parts], **settings: Any) -> SampleGradients:
    report, error = profile(build, **{"steps": 20, **settings})
    assert error is None
    found = samples_of(report)
    assert found
    return found


def by_hand(batch: tuple[Tensor, Tensor], model: nn.Module) -> tuple[list[float], list[float]]:
    """Norms and shares in float64, one sample after the other."""
    rows = []
    for inputs, target in zip(*batch, strict=True):
        loss = nn.functional.mse_loss(model(inputs[None]), target[None])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]).double())
    table = torch.stack(rows)
    whole = table.sum(0)
    return table.norm(dim=1).tolist(), (table @ whole / (whole @ whole)).tolist()


@pytest.mark.parametrize("step", [None, not_vectorised], ids=["torch.func", "one by one"])
def test_norms_and_shares_are_those_of_a_plain_loop_with_the_weights_of_the_step(profile: Profile, step: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    weights: list[dict[str, Tensor]] = []

    def keep(*_: Any) -> None:
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    def build() -> Parts:
        made = parts(model=model, **({"training_step": step, "loss_fn": None} if step else {}))
        made["optimizer"].register_step_pre_hook(keep)
        return made

    found = measured(profile, build)
    assert (found.step, found.at_step, found.reason) == (SPIKE, True, "")
    assert (set(found.batches), found.rows) == ({SPIKE}, tuple(range(SIZE)))
    model.load_state_dict(weights[SPIKE])
    norms, shares = by_hand(data()[SPIKE], model)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-4)
    np.testing.assert_allclose(found.shares, shares, rtol=1e-3, atol=1e-5)
    assert found.agreement == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_shares_sum_to_one_for_means_and_sums(profile: Profile, reduction: str, accumulate: int) -> None:
    def build() -> Parts:
        made = parts(loss_fn=nn.MSELoss(reduction=reduction))
        return made | {"optimizer": torch.optim.SGD(made["model"].parameters(), lr=1e-3)}

    found = measured(profile, build, accumulate=accumulate)
    assert found.agreement == pytest.approx(1, abs=1e-3)
    assert sum(found.shares) == pytest.approx(1)
    worst = int(np.argmax(found.shares))
    assert (found.batches[worst], found.rows[worst]) == (SPIKE, ROW)
    assert len(found.rows) == SIZE * accumulate


def test_the_finding_names_the_sample(profile: Profile) -> None:
    report, _ = profile(parts, steps=20)
    (found,) = [one for one in report.diagnosis.findings if one.code == "GC612"]
    assert (found.step, found.evidence["batch"], found.evidence["rows"]) == (SPIKE, SPIKE, [ROW])


def test_without_a_spike_no_batch_is_run_again(profile: Profile) -> None:
    calls = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    report, _ = profile(lambda: parts(dataloader=data(1.0), training_step=step, loss_fn=None), steps=20)
    assert samples_of(report) is None
    assert len(calls) == 20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: {"model": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))}, "normalises over"),
        (lambda: {"dataloader": data(1e5, size=600)}, "600 samples"),
        (lambda: {"training_step": spoil, "loss_fn": None}, "written to"),
        (lambda: {"dataloader": Refilled(data())}, "written to"),
        (lambda: {"dataloader": [{"rows": [batch]} for batch in data()], "training_step": unpack}, ""),
        (lambda: {"dataloader": [Hidden(batch) for batch in data()], "training_step": reveal}, "a row for each"),
    ],
    ids=["batch norm", "too many", "written to", "refilled", "nested", "hidden"],
)
def test_what_can_not_be_measured_is_said(profile: Profile, change: Callable[[], Parts], reason: str) -> None:
    found = measured(profile, lambda: parts(**change()))
    assert reason in found.reason
    assert bool(found.rows) is not bool(reason)


def spoil(model: nn.Module, batch: Any) -> Tensor:
    batch[0].add_(0.0)
    return nn.functional.mse_loss(model(batch[0]), batch[1])


class Refilled:
    """A dataloader that puts every batch into the same memory."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self._batches = batches
        self._memory = tuple(tensor.clone() for tensor in batches[0])

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batch in self._batches:
            for mine, new in zip(self._memory, batch, strict=True):
                mine.copy_(new)
            yield self._memory


def unpack(model: nn.Module, batch: Any) -> Tensor:
    inputs, targets = batch["rows"][0]
    return nn.functional.mse_loss(model(inputs), targets)


class Hidden:
    """A batch that gradcheck can't look into."""

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self.content = batch


def reveal(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.mse_loss(model(batch.content[0]), batch.content[1])


def test_a_loss_between_samples_is_no_sum_over_them(profile: Profile) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        spread = model(batch[0])
        return (spread - spread.mean(0) - batch[1] + batch[1].mean(0)).square().mean()

    report, _ = profile(lambda: parts(training_step=step, loss_fn=None), steps=20)
    assert any("depends on the others" in one.reason for one in report.diagnosis.not_evaluated)
    assert not [one for one in report.diagnosis.findings if one.code == "GC612"]


def test_dropout_does_not_hide_the_sample(profile: Profile) -> None:
    found = measured(
        profile, lambda: parts(model=nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 1)))
    )
    assert int(np.argmax(found.shares)) == ROW
    assert found.shares[ROW] > 0.8
    assert found.agreement == pytest.approx(1, abs=0.5)


def test_afterwards_everything_is_as_without_it(profile: Profile) -> None:
    kept: list[Parts] = []

    def build() -> Parts:
        kept.append(parts(model=nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 1))))
        return kept[-1]

    states = []
    for ignore in (("GC612",), ()):
        report, _ = profile(build, steps=20, ignore=ignore)
        assert bool(samples_of(report)) is not bool(ignore)
        states.append({**state_of(kept[-1]), "drawn": torch.rand(3)})
    assert_same(*states)
