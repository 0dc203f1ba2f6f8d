"""`gradcheck_cli.watch` around loops that others wrote."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

import gradcheck_cli
from gradcheck_cli import archive
from gradcheck_cli.errors import ConfigError, GradcheckError
from gradcheck_cli.integrations.watching import Watch
from tests.integrations.loops import Numbers, classify, network, state, total_norm, train, vectors
from tests.observe.test_loss_scales import EVERY_USE, MAX_NORM, SCALE, Use, clip_and_step, scaled, step
from tests.observe.test_neutrality import assert_same

MODES: dict[str, Any] = {
    "plain": dict,
    "accumulation": lambda: {"accumulate": 4},
    "clipping": lambda: {"clip": 0.1},
    "bf16": lambda: {"bf16": True},
    "fp16 with a scaler": lambda: {"scaler": GradScaler("cpu"), "clip": 0.1, "accumulate": 2},
}


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


@pytest.mark.parametrize("mode", MODES)
def test_numbers_are_the_loops_own_and_training_is_what_it_was(mode: str) -> None:
    model = network()
    optimizer = adam(model)
    with gradcheck_cli.watch(model, optimizer) as watched:
        numbers = train(model, optimizer, vectors(), classify, **MODES[mode]())
    numbers.assert_recorded(watched.recording)
    seen = state(model, optimizer)
    bare = network()
    other = adam(bare)
    train(bare, other, vectors(), classify, **MODES[mode]())
    assert_same(state(bare, other), seen)


def test_what_the_loop_does_is_in_the_report() -> None:
    model = network()
    optimizer = adam(model)
    with gradcheck_cli.watch(model, optimizer) as watched:
        train(model, optimizer, vectors(), classify, clip=0.1, scaler=GradScaler("cpu"))
    run = watched.report().run
    assert (run.target, run.optimizer, run.device) == ("Sequential", "Adam", "cpu")
    assert (run.precision, run.uses_scaler, run.max_norm) == ("fp16", True, 0.1)


def watch_scaled(use: Use) -> tuple[Watch, Any]:
    torch.manual_seed(0)
    with ExitStack() as stack:
        opened: list[Watch] = []
        trained = scaled(use)(
            lambda model, optimizer: opened.append(stack.enter_context(gradcheck_cli.watch(model, optimizer)))
        )
    return opened[0], trained


@pytest.mark.parametrize("use", EVERY_USE, ids=lambda use: use.__name__)
def test_norms_and_losses_are_those_without_a_loss_scale(use: Use) -> None:
    watched, trained = watch_scaled(use)
    np.testing.assert_allclose(watched.recording.series.grad_norm, trained.norms[0], rtol=1e-6)
    np.testing.assert_allclose(watched.recording.series.loss, trained.losses[0], rtol=1e-6)


def test_a_loop_that_clips_or_steps_with_its_loss_scale_is_told_so() -> None:
    clipped, stepped = (watch_scaled(use)[0].report().run for use in (clip_and_step, step))
    assert clipped.max_norm == MAX_NORM / SCALE
    assert "a clip at 1 acts as one at 0.000977" in clipped.notes[0]
    assert "the optimizer steps on gradients that are multiplied by the loss scale, 1024" in stepped.notes[0]


def test_a_loss_scale_is_only_in_the_gradients_that_its_backward_reached() -> None:
    models, scaler = [network(), network()], GradScaler("cpu", init_scale=SCALE)
    optimizers, norms, losses = [adam(model) for model in models], [], []
    with ExitStack() as stack:
        seen = [stack.enter_context(gradcheck_cli.watch(*pair)) for pair in zip(models, optimizers, strict=True)]
        for batch in vectors():
            losses.append([classify(model, batch) for model in models])
            losses[-1][0].backward()
            scaler.scale(losses[-1][1]).backward()
            norms.append([total_norm(model.parameters()) for model in models])
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    plain, multiplied = np.transpose(norms)
    np.testing.assert_allclose(seen[0].recording.series.grad_norm, plain, rtol=1e-6)
    np.testing.assert_allclose(seen[1].recording.series.grad_norm, multiplied / SCALE, rtol=1e-6)
    for watched, own in zip(seen, zip(*losses, strict=True), strict=True):
        np.testing.assert_allclose(watched.recording.series.loss, [loss.item() for loss in own], rtol=1e-6)


def by_closure(model: nn.Module, optimizer: torch.optim.Optimizer, keyword: bool) -> Numbers:
    """Backward and clipping inside of `optimizer.step`, as in Lightning."""
    numbers = Numbers()
    for batch in vectors():

        def closure(batch: Any = batch) -> Tensor:
            optimizer.zero_grad()
            loss = classify(model, batch)
            loss.backward()
            numbers.loss.append(float(loss.detach()))
            numbers.norm.append(total_norm(model.parameters()))
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            numbers.clipped.append(total_norm(model.parameters()))
            return loss

        optimizer.step(closure=closure) if keyword else optimizer.step(closure)
    return numbers


@pytest.mark.parametrize("keyword", [True, False])
def test_gradients_of_a_closure_are_measured_when_it_has_run(keyword: bool) -> None:
    model = network()
    optimizer = adam(model)
    with gradcheck_cli.watch(model, optimizer) as watched:
        numbers = by_closure(model, optimizer, keyword)
    numbers.assert_recorded(watched.recording)
    assert np.nanmax(watched.recording.probes.update_ratio) > 1e-3
    bare = network()
    other = adam(bare)
    by_closure(bare, other, keyword)
    assert_same(state(model, optimizer)["weights"], state(bare, other)["weights"])


def test_a_step_of_lbfgs_is_one_step_with_the_first_of_its_losses() -> None:
    model = nn.Linear(6, 5)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    firsts = []
    with gradcheck_cli.watch(model, optimizer) as watched:
        for batch in vectors(3):

            def closure(batch: Any = batch) -> Tensor:
                optimizer.zero_grad()
                loss = classify(model, batch)
                loss.backward()
                return loss

            firsts.append(optimizer.step(closure).item())  # torch returns the first
    np.testing.assert_allclose(watched.recording.series.loss, firsts, rtol=1e-6)


def adversaries() -> tuple[list[nn.Module], list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    models: list[nn.Module] = [nn.Linear(3, 6), nn.Linear(6, 1)]
    return models, [torch.optim.Adam(model.parameters(), lr=0.01) for model in models]


def play(models: list[nn.Module], optimizers: list[torch.optim.Optimizer]) -> list[Numbers]:
    """A GAN: the discriminator's gradients are clipped, the generator's loss leaves gradients in both."""
    (generator, discriminator), numbers = models, [Numbers(), Numbers()]

    def step(number: int, loss: Tensor) -> None:
        optimizers[number].zero_grad()
        loss.backward()
        numbers[number].loss.append(float(loss.detach()))
        numbers[number].norm.append(total_norm(models[number].parameters()))
        if number == 1:
            nn.utils.clip_grad_norm_(discriminator.parameters(), 0.1)
        numbers[number].clipped.append(total_norm(models[number].parameters()))
        optimizers[number].step()

    for real, _ in vectors():
        fake = generator(torch.randn(8, 3))
        step(1, (discriminator(fake.detach()) - discriminator(real)).mean())
        step(0, -discriminator(fake).square().mean())
    return numbers


def test_each_of_two_optimizers_has_its_own_losses_norms_and_clips() -> None:
    models, optimizers = adversaries()
    with gradcheck_cli.watch(models[0], optimizers[0]) as one, gradcheck_cli.watch(models[1], optimizers[1]) as other:
        numbers = play(models, optimizers)
    numbers[0].assert_recorded(one.recording)
    numbers[1].assert_recorded(other.recording)
    assert (one.report().run.max_norm, other.report().run.max_norm) == (None, 0.1)


def test_two_optimizers_of_one_loss_both_have_it() -> None:
    model = network()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (model[0], model[3])]
    losses = []
    with ExitStack() as stack:
        watched = [
            stack.enter_context(gradcheck_cli.watch(layer, optimizer))
            for layer, optimizer in zip((model[0], model[3]), optimizers, strict=True)
        ]
        for batch in vectors():
            model.zero_grad()
            loss = classify(model, batch)
            loss.backward()
            losses.append(float(loss.detach()))
            for optimizer in optimizers:
                optimizer.step()
    for one in watched:
        np.testing.assert_allclose(one.recording.series.loss, losses, rtol=1e-6)


def test_watches_may_end_in_any_order() -> None:
    """That nothing is left in torch is what conftest's fixture looks at."""
    models, optimizers = adversaries()
    contexts = [gradcheck_cli.watch(*pair) for pair in zip(models, optimizers, strict=True)]
    first, second = [context.__enter__() for context in contexts]
    play(models, optimizers)
    contexts[0].__exit__(None, None, None)
    play(models, optimizers)
    contexts[1].__exit__(None, None, None)
    play(models, optimizers)
    assert (first.recording.steps, second.recording.steps) == (8, 16)


def test_nothing_stays_behind_when_the_loop_raises_and_the_steps_before_can_be_read() -> None:
    model = network()
    optimizer = adam(model)
    with pytest.raises(ValueError, match="target"), gradcheck_cli.watch(model, optimizer) as watched:  # noqa: PT012
        train(model, optimizer, vectors(3), classify)
        classify(model, (torch.randn(8, 6), torch.zeros(3).long()))
    assert not any(module._forward_hooks for module in model.modules())
    assert watched.report().series.loss.shape == (3,)


def test_it_goes_on_after_a_loss_that_is_not_finite() -> None:
    model = network()
    optimizer = adam(model)
    with gradcheck_cli.watch(model, optimizer) as watched:
        train(model, optimizer, [(x * float("nan"), y) for x, y in vectors(5)], classify)
    report = watched.report()
    assert len(report.series) == 5
    assert "GC301" in {finding.code for finding in report.diagnosis.findings}


def test_findings_can_be_selected_printed_and_saved(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with gradcheck_cli.watch(model, optimizer, select=["GC106"]) as watched:
        train(model, optimizer, vectors(), classify)
        during = watched.report()
    assert {finding.code for finding in during.diagnosis.findings} == {"GC106"}
    stream = io.StringIO()
    watched.print(stream)
    assert "GC106" in stream.getvalue()
    watched.save(tmp_path / "run.npz")
    np.testing.assert_array_equal(archive.load(tmp_path / "run.npz").series.loss, watched.recording.series.loss)


def test_without_a_step_there_is_no_report() -> None:
    model = network()
    with gradcheck_cli.watch(model, adam(model)) as watched:
        adam(model).step()
    assert watched.recording.steps == 0
    with pytest.raises(GradcheckError, match="Adam has made no step"):
        watched.report()


def test_an_unknown_code_is_refused_at_once() -> None:
    model = network()
    with pytest.raises(ConfigError, match="GC999"), gradcheck_cli.watch(model, adam(model), ignore=["GC999"]):
        pytest.fail("it was not")


def test_importing_gradcheck_loads_no_torch_until_watch_is_asked_for() -> None:
    source = "import sys, gradcheck_cli\nbefore = 'torch' in sys.modules\ngradcheck_cli.watch\n"
    source += "print(before, 'torch' in sys.modules, hasattr(gradcheck_cli, 'watched'))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
