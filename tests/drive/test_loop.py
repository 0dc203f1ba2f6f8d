"""The loop trains exactly as a plain loop does: bit-identical parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from gradcheck_cli.drive.batches import windows
from gradcheck_cli.drive.loop import LoopSettings, MaxNorm, run
from gradcheck_cli.drive.workload import make_workload
from tests.drive.conftest import Run
from tests.drive.training import (
    Parts,
    assert_same,
    batches,
    epochs,
    loss_of,
    parts,
    plain_step,
    samples,
    seed,
    state_of,
    train_by_hand,
)

Trained = Callable[..., tuple[dict[str, Tensor], Run]]


def test_fp32(trained: Trained) -> None:
    state, (report, _) = trained(parts, steps=7)
    assert_same(state, train_by_hand(parts, 7, plain_step))
    assert len(report.series) == 7
    assert report.run.ended == "completed"


def test_bf16_is_autocast(trained: Trained) -> None:
    def step(made: Parts, batch: Any) -> None:
        made["optimizer"].zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(made, batch)
        loss.backward()
        made["optimizer"].step()

    state, (report, _) = trained(parts, steps=6, precision="bf16")
    assert_same(state, train_by_hand(parts, 6, step))
    assert report.run.precision == "bf16"


def test_fp16_scales_and_skips_as_a_grad_scaler_does(trained: Trained) -> None:
    scaler = torch.amp.GradScaler("cpu")
    scales = []

    def build() -> Parts:
        made = parts()
        made["dataloader"] = [(inputs, target * 20) for inputs, target in made["dataloader"]]
        return made

    def step(made: Parts, batch: Any) -> None:
        scales.append(scaler.get_scale())
        made["optimizer"].zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(made, batch)
        scaler.scale(loss).backward()
        scaler.unscale_(made["optimizer"])
        nn.utils.clip_grad_norm_(made["model"].parameters(), 1.0)
        scaler.step(made["optimizer"])
        scaler.update()

    state, (report, _) = trained(build, steps=12, precision="fp16", clip=1.0)
    assert_same(state, train_by_hand(build, 12, step))
    skipped = [later < scale for scale, later in zip(scales, [*scales[1:], scaler.get_scale()], strict=True)]
    assert 0 < sum(skipped) < 12
    assert report.series.skipped.tolist() == skipped
    assert report.series.loss_scale.tolist() == scales


def accumulate_by_hand(build: Callable[[], Parts], steps: int, length: int) -> dict[str, Tensor]:
    """Windows of `length` batches that end with the epoch; each loss divided by its window's own length."""
    seed()
    made = build()
    loader = made["dataloader"]
    windows = [loader[i : i + length] for i in range(0, len(loader), length)]
    for _, window in zip(range(steps), epochs(windows), strict=False):
        made["optimizer"].zero_grad()
        for batch in window:
            (loss_of(made, batch) / len(window)).backward()
        made["optimizer"].step()
    return state_of(made)


def test_accumulation_divides_by_the_window_even_where_it_is_short(trained: Trained) -> None:
    def build() -> Parts:
        return parts(batch_count=10)

    state, (report, _) = trained(build, steps=5, accumulate=4)
    assert_same(state, accumulate_by_hand(build, 5, 4))
    assert report.series.batch.tolist() == [0, 4, 8, 0, 4]
    assert report.series.epoch.tolist() == [0, 0, 0, 1, 1]


def test_short_window_has_the_gradient_of_its_two_batches(trained: Trained) -> None:
    """Independent of any loop: for equal batches the mean gradient is that of one of them."""

    def build() -> Parts:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        return {"model": model, "dataloader": batches(1) * 10, "loss_fn": nn.MSELoss()}

    norms = trained(build, steps=3, accumulate=4)[1][0].series.grad_norm
    single = trained(build, steps=1)[1][0].series.grad_norm[0]
    np.testing.assert_allclose(norms, single, rtol=1e-6)


def test_clip_clips_and_reports_the_norm_before_it(trained: Trained) -> None:
    def step(made: Parts, batch: Any) -> None:
        made["optimizer"].zero_grad()
        loss_of(made, batch).backward()
        norms.append(float(nn.utils.clip_grad_norm_(made["model"].parameters(), 0.5)))
        made["optimizer"].step()

    norms: list[float] = []
    state, (report, _) = trained(parts, steps=6, clip=0.5)
    assert_same(state, train_by_hand(parts, 6, step))
    assert max(norms) > 0.5
    np.testing.assert_allclose(report.series.grad_norm, norms, rtol=1e-5)
    np.testing.assert_allclose(report.series.grad_norm_clipped, np.minimum(norms, 0.5), rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_fixed_norm_and_a_function_that_always_gives_it_are_the_same(precision: str) -> None:
    assert_same(*(train_with(max_norm, precision) for max_norm in (0.5, lambda norm: 0.5)))


def test_a_function_is_asked_once_a_step_about_the_norm_before_clipping() -> None:
    def half(norm: float) -> float:
        asked.append(norm)
        return norm / 2

    asked: list[float] = []

    def step(made: Parts, batch: Any) -> None:
        made["optimizer"].zero_grad()
        loss_of(made, batch).backward()
        norm = nn.utils.get_total_norm([p.grad for p in made["model"].parameters() if p.grad is not None])
        norms.append(float(norm))
        nn.utils.clip_grad_norm_(made["model"].parameters(), float(norm) / 2)
        made["optimizer"].step()

    norms: list[float] = []
    assert_same(train_with(half), train_by_hand(parts, 6, step))
    assert asked == norms
    assert len(norms) == 6


def test_a_function_that_gives_infinity_clips_nothing() -> None:
    assert_same(train_with(lambda norm: float("inf")), train_by_hand(parts, 6, plain_step))


def test_a_function_is_not_asked_about_a_norm_that_is_not_finite() -> None:
    def build() -> Parts:
        made = parts()
        made["dataloader"][2] = (made["dataloader"][2][0], torch.full((4, 1), 1e30))
        return made

    asked: list[float] = []
    train_with(lambda norm: asked.append(norm) or 1.0, "fp16", build)  # type: ignore[func-returns-value]
    assert np.isfinite(asked).all()
    assert 0 < len(asked) < 6


def train_with(max_norm: MaxNorm, precision: str = "fp32", build: Callable[[], Parts] = parts) -> dict[str, Tensor]:
    """The model's state after six steps."""
    seed()
    made = build()
    workload = make_workload(made)
    settings = LoopSettings(torch.device("cpu"), precision, 6, max_norm)
    assert len(list(run(workload, windows(workload.dataloader, 1), settings))) == 6
    return state_of(made)


def test_scheduler_steps_once_per_optimizer_step(trained: Trained) -> None:
    def build() -> Parts:
        made = parts(batch_count=4)
        return {**made, "scheduler": StepLR(made["optimizer"], step_size=1, gamma=0.5)}

    _, (report, _) = trained(build, steps=4, accumulate=2)
    np.testing.assert_allclose(report.series.lr[:, 0], [0.1, 0.05, 0.025, 0.0125])


def test_plateau_scheduler_is_given_the_loss(trained: Trained) -> None:
    def build() -> Parts:
        made = parts(lr=1e-4)
        scheduler = ReduceLROnPlateau(made["optimizer"], patience=0, threshold=0.5, factor=0.1)
        return {**made, "scheduler": scheduler}

    def step(made: Parts, batch: Any) -> None:
        made["optimizer"].zero_grad()
        loss = loss_of(made, batch)
        loss.backward()
        made["optimizer"].step()
        made["scheduler"].step(loss.detach())

    state, (report, _) = trained(build, steps=6)
    assert_same(state, train_by_hand(build, 6, step))
    assert report.series.lr[-1, 0] < 1e-4


def test_epochs_are_iterated_again_with_new_shuffles(trained: Trained) -> None:
    taken: list[list[float]] = [[], []]

    def build_into(notes: list[float]) -> Callable[[], Parts]:
        def loss_fn(output: Tensor, target: Tensor) -> Tensor:
            notes.extend(target.flatten().tolist())
            return nn.functional.mse_loss(output, target)

        def build() -> Parts:
            dataset = TensorDataset(*samples(12))
            return {**parts(), "dataloader": DataLoader(dataset, batch_size=4, shuffle=True), "loss_fn": loss_fn}

        return build

    state, (report, _) = trained(build_into(taken[0]), steps=9)
    assert_same(state, train_by_hand(build_into(taken[1]), 9, plain_step))
    first, second = taken[0][:12], taken[0][12:24]
    assert taken[0] == taken[1]
    assert sorted(first) == sorted(second)
    assert first != second
    assert report.series.epoch.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_training_step_with_its_own_idea_of_a_batch(trained: Trained) -> None:
    def build() -> Parts:
        made = parts()
        made["dataloader"] = [{"x": inputs, "deep": [target]} for inputs, target in made["dataloader"]]
        made["training_step"] = lambda model, batch: (model(batch["x"]) - batch["deep"][0]).square().mean()
        return made

    state, _ = trained(build, steps=4)
    assert_same(state, train_by_hand(parts, 4, plain_step))


def test_an_optimizer_that_calls_its_bases_step(trained: Trained) -> None:
    class Derived(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    def build() -> Parts:
        made = parts()
        torch.optim.SGD(made["model"].parameters(), lr=1.0)  # torch hooks a class at its first instance
        made["optimizer"] = Derived(made["model"].parameters(), lr=0.1, momentum=0.9)
        return made

    state, (report, _) = trained(build, steps=4)
    assert_same(state, train_by_hand(parts, 4, plain_step))
    assert len(report.series) == 4


def test_sparse_gradients_train_with_the_optimizer_for_them(trained: Trained) -> None:
    def build() -> Parts:
        model = nn.Embedding(5, 2, sparse=True)
        loader = [torch.tensor([0, 3]), torch.tensor([1, 1])]
        return {"model": model, "dataloader": loader, "training_step": lambda model, batch: model(batch).sum()}

    report = trained(build, optimizer="sparseadam", lr=0.1)[1][0]
    np.testing.assert_allclose(report.series.grad_norm[:2], [2.0, np.sqrt(8)], rtol=1e-6)
