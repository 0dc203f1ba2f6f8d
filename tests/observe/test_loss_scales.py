"""Gradients that are measured while the loss scale is in them: the numbers are those without it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.amp import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer

from gradcheck_cli.observe.loss_scales import Gradient
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.observe.session import Session
from gradcheck_cli.observe.transfer import Value
from tests.observe.session_loops import Made, Net, Trained, batches
from tests.observe.sessions import Loop, nobody, state_of, watch

SCALE = 1024.0
MAX_NORM = 1.0
Use = Callable[[nn.Module, Optimizer, GradScaler], None]
of = pytest.mark.parametrize


def scaled(use: Use, factor: float = 1.0) -> Loop:
    """A loop that scales its loss, which it multiplies by `factor` after that, and makes `use` of the gradients."""

    def loop(made: Made) -> Trained:
        model, scaler = Net(), GradScaler("cpu", init_scale=SCALE, growth_interval=3)
        trained = Trained([model], [Adam(model.parameters(), lr=0.01)])
        made(model, trained.optimizers[0])
        for x, y in batches(9):
            trained.optimizers[0].zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = cross_entropy(model(x), y)
            multiplied = scaler.scale(loss)
            (multiplied if factor == 1 else multiplied * factor).backward()  # type: ignore[no-untyped-call]
            trained.note(0, loss.detach() * factor)
            trained.norms[0][-1] /= scaler.get_scale()
            use(model, trained.optimizers[0], scaler)
        return trained

    return loop


def clip_and_step(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    scaler.step(optimizer)
    scaler.update()


def step(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    optimizer.step()


def clip_and_step_directly(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()


def divide_and_step(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    for parameter in model.parameters():
        parameter.grad /= scaler.get_scale()  # type: ignore[operator, assignment]
    clip_and_step_directly(model, optimizer, scaler)


def divide_data_and_step(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    for parameter in model.parameters():
        parameter.grad.data.div_(scaler.get_scale())  # type: ignore[union-attr]
    clip_and_step_directly(model, optimizer, scaler)


def unscale_and_step(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    scaler.unscale_(optimizer)
    clip_and_step(model, optimizer, scaler)


def update_by_hand(model: nn.Module, optimizer: Optimizer, scaler: GradScaler) -> None:
    for parameter in model.parameters():
        parameter.data.sub_(parameter.grad / scaler.get_scale(), alpha=0.1)  # type: ignore[operator]


EVERY_USE = [
    clip_and_step,
    step,
    clip_and_step_directly,
    divide_and_step,
    divide_data_and_step,
    unscale_and_step,
]


@of("factor", [1.0, 0.25])
@of("use", EVERY_USE, ids=lambda use: use.__name__)
def test_norms_and_losses_are_those_without_the_scale(use: Use, factor: float) -> None:
    seen = watch(scaled(use, factor))
    (recording,) = seen.recordings
    np.testing.assert_allclose(recording.series.grad_norm, seen.trained.norms[0], rtol=1e-6)
    np.testing.assert_allclose(recording.series.loss, seen.trained.losses[0], rtol=1e-6)
    assert (recording.statistics.max_abs <= recording.statistics.norm).all()
    assert (recording.statistics.norm <= recording.series.grad_norm[:, None]).all()
    assert (recording.series.loss_scale >= SCALE).all()


@of("use", [clip_and_step, clip_and_step_directly], ids=lambda use: use.__name__)
def test_what_is_left_by_a_clip_is_without_the_scale(use: Use) -> None:
    (recording,) = watch(scaled(use)).recordings
    applied = MAX_NORM / recording.series.loss_scale
    np.testing.assert_allclose(recording.series.grad_norm_clipped, applied, rtol=1e-5)


def test_gradients_of_activations_are_without_the_scale() -> None:
    (scaled_one,), (unscaled,) = (watch(scaled(use)).recordings for use in (step, unscale_and_step))
    np.testing.assert_allclose(scaled_one.probes.output_grad_rms[0], unscaled.probes.output_grad_rms[0], rtol=1e-6)


def test_updates_by_hand() -> None:
    def loop(made: Made) -> Trained:
        model, scaler = Net(), GradScaler("cpu", init_scale=SCALE)
        trained = Trained([model], [])
        for x, y in batches():
            loss = cross_entropy(model(x), y)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            trained.note(0, loss)
            update_by_hand(model, nobody, scaler)  # type: ignore[arg-type]
            model.zero_grad()
        return trained

    seen = watch(loop)
    (recording,) = seen.recordings
    np.testing.assert_allclose(recording.series.grad_norm, np.array(seen.trained.norms[0]) / SCALE, rtol=1e-6)


@of(
    ("use", "clipped_at", "stepped_at"),
    [
        (clip_and_step, SCALE, 1.0),
        (step, 1.0, SCALE),
        (divide_and_step, 1.0, 1.0),
        (divide_data_and_step, 1.0, 1.0),
        (unscale_and_step, 1.0, 1.0),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_loop_that_clips_or_steps_with_the_scale_is_known(use: Use, clipped_at: float, stepped_at: float) -> None:
    with Session(RecorderSettings(), lambda one: None) as session:
        scaled(use)(nobody)
    (one,) = session.watched
    assert (session.scales.clipped_at(one), session.scales.stepped_at(one)) == (clipped_at, stepped_at)


@of("use", EVERY_USE, ids=lambda use: use.__name__)
def test_training_is_the_same_bit_by_bit(use: Use) -> None:
    torch.manual_seed(0)
    bare, scale = state_of(scaled(use)(nobody)), GradScaler.scale
    watched = state_of(watch(scaled(use)).trained)
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(bare, watched, strict=True))
    assert GradScaler.scale is scale


def test_a_division_stays_on_the_device() -> None:
    """Fake tensors of an accelerator raise when they are asked for a value."""
    with FakeTensorMode():
        weights = [nn.Parameter(torch.empty(*shape, device="cuda")) for shape in ((4, 3), (3,))]
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        gradient, scale = Gradient(SGD(weights, 0.1)), torch.empty((), device="cuda")
        gradient.add(scale, is_first=True)
        values: dict[str, Value] = {"statistics": torch.empty(2, 6, device="cuda")}
        before = values["statistics"]
        gradient.divide(values)
        divided = values["statistics"]
        assert isinstance(divided, Tensor)
        assert divided is not before
        assert (divided.shape, divided.device.type) == ((2, 6), "cuda")
        with pytest.raises(DataDependentOutputException):
            scale.item()
