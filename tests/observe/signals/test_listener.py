"""What is heard of a model's calls: which functions, in which modules, and the numbers against plain computations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.records import Recording, RunInfo
from gradcheck_cli.signals import Signals, Site

RUN = RunInfo(target="t", device="cpu", precision="fp32", seed=0)


def listen(model: nn.Module, batches: list[Tensor], every: int = 1) -> Recording:
    """A recording of one training step a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recorder(model, optimizer, RecorderSettings(probe_every=every)) as recorder:
        for batch in batches:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    return recorder.recording(RUN)


def signals_of(model: nn.Module, *batches: Tensor) -> Signals:
    signals = listen(model, list(batches)).signals
    assert signals is not None
    return signals


class Calls(nn.Module):
    """A module around a function, behind a layer."""

    def __init__(self, call: Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer(x))


FLAT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "sigmoid": (torch.sigmoid, lambda x: x.sigmoid() * (1 - x.sigmoid()) / 0.25),
    "tanh": (lambda x: x.tanh(), lambda x: 1 - x.tanh() ** 2),
    "softsign": (functional.softsign, lambda x: 1 / (1 + x.abs()) ** 2),
    "hardtanh": (functional.hardtanh, lambda x: ((x > -1) & (x < 1)).float()),
    "hardsigmoid": (functional.hardsigmoid, lambda x: ((x > -3) & (x < 3)).float()),
}


@pytest.mark.parametrize("kind", FLAT)
def test_saturation_is_where_the_derivative_is_under_5_percent(kind: str) -> None:
    torch.manual_seed(0)
    model, batch = Calls(FLAT[kind][0]), 4 * torch.randn(32, 8)
    with torch.no_grad():
        slope = FLAT[kind][1](model.layer(batch).double())
    heard = signals_of(model, batch).activations
    assert heard.sites == (Site("", kind),)
    assert heard.saturated[0, 0] == pytest.approx((slope < 0.05).double().mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (lambda x: functional.relu(x), "relu"),
        (lambda x: x.clone().relu_(), "relu"),
        (torch.relu, "relu"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(0, 6), "relu6"),
        (nn.Sigmoid(), "sigmoid"),
        (lambda x: x.sigmoid(), "sigmoid"),
        (nn.Tanh(), "tanh"),
        (nn.Softmax(-1), "softmax"),
    ],
)
def test_functions_are_heard_however_they_are_called(call: Any, kind: str) -> None:
    heard = signals_of(Calls(call), torch.randn(16, 8)).activations
    assert [site.kind for site in heard.sites] == [kind]


def test_zeros_and_units_that_are_never_active() -> None:
    torch.manual_seed(0)
    model = Calls(torch.relu)
    with torch.no_grad():
        model.layer.bias[:3] = -100.0
    heard = signals_of(model, torch.randn(16, 8), torch.randn(16, 8)).activations
    assert (heard.units[0], heard.never_active[0], heard.samples[0]) == (8, 3 / 8, 32)
    assert heard.zero[0, 0] > 3 / 8


def test_a_unit_that_is_active_once_in_all_steps_is_alive() -> None:
    model = Calls(torch.relu)
    with torch.no_grad():
        model.layer.weight.copy_(torch.eye(8))
        model.layer.bias.zero_()
    quiet = -torch.ones(16, 8)
    loud = quiet.clone()
    loud[7, 2] = 1.0
    assert signals_of(model, quiet, loud, quiet).activations.never_active[0] == 7 / 8


def test_channels_are_units_behind_a_convolution() -> None:
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4), nn.ReLU())
    model(torch.randn(2, 1, 8, 8))
    heard = signals_of(model, torch.randn(8, 1, 8, 8)).activations
    assert [(site.module, units) for site, units in zip(heard.sites, heard.units, strict=True)] == [("2", 6), ("5", 4)]


class Shared(nn.Module):
    """One ReLU for two layers, as ResNets have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(8, 6), nn.Linear(6, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))))


def test_a_shared_activation_has_a_site_for_each_use() -> None:
    heard = signals_of(nn.Sequential(Shared(), nn.Linear(4, 4)), torch.randn(16, 8)).activations
    assert heard.sites == (Site("0.relu", "relu", 0), Site("0.relu", "relu", 1))
    assert heard.units.tolist() == [6, 4]


def test_layers_input_and_output() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    batch = 3 * torch.randn(32, 8) + 1
    with torch.no_grad():
        hidden, output = model[1](model[0](batch)), model(batch)
    recording = listen(model, [batch])
    layers = recording.signals.layers  # type: ignore[union-attr]
    expected = [value.square().mean().sqrt().item() for value in (batch, hidden)]
    assert layers.input_rms[0] == pytest.approx(expected, rel=1e-5)
    assert layers.output_mean[0, 1] == pytest.approx(output.mean().item(), rel=1e-4, abs=1e-7)


def test_a_large_activation_is_sampled_evenly() -> None:
    torch.manual_seed(0)
    model, batch = Calls(torch.sigmoid, 64), 6 * torch.randn(3000, 64)
    with torch.no_grad():
        exact = ((torch.sigmoid(model.layer(batch)) - 0.5).abs() > 0.48734).double().mean().item()
    assert signals_of(model, batch).activations.saturated[0, 0] == pytest.approx(exact, abs=0.03)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(self.norm(x))


def test_blocks_of_a_stack() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(Residual(16) for _ in range(3)))
    batch = torch.randn(4, 10, 16)
    with torch.no_grad():
        inner = [batch]
        for block in model:
            inner.append(block(inner[-1]))
    blocks = signals_of(model, batch).blocks
    assert blocks.names == ("0", "1", "2")
    for index in range(3):
        given, output = inner[index].double(), inner[index + 1].double()
        unit = functional.normalize(output, dim=-1)
        cosine = (unit @ unit.transpose(1, 2)).masked_fill(torch.eye(10, dtype=torch.bool), 0).sum() / (4 * 90)
        assert blocks.output_rms[0, index] == pytest.approx(output.square().mean().sqrt().item(), rel=1e-5)
        share = (output - given).square().mean().sqrt() / output.square().mean().sqrt()
        assert blocks.branch_share[0, index] == pytest.approx(share.item(), rel=1e-4)
        assert blocks.token_cosine[0, index] == pytest.approx(cosine.item(), abs=1e-5)


def test_output_variation_and_classes() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 5)
    batch = torch.randn(64, 8)
    with torch.no_grad():
        scores = model(batch).double()
        most = np.bincount(scores.argmax(1).numpy()).max() / 64
    heard = signals_of(model, batch)
    expected = (scores.var(0, correction=0).mean() / scores.square().mean()).sqrt().item()
    assert heard.output_variation[0] == pytest.approx(expected, rel=1e-5)
    assert (heard.same_class[0], heard.classes[0]) == (pytest.approx(most), 5)
    given = batch.double()
    expected = (given.var(0, correction=0).mean() / given.square().mean()).sqrt().item()
    assert heard.input_variation[0] == pytest.approx(expected, rel=1e-5)


def test_a_constant_output_does_not_vary() -> None:
    model = nn.Linear(8, 5)
    nn.init.zeros_(model.weight)
    heard = signals_of(model, torch.randn(16, 8))
    assert heard.output_variation[0] == pytest.approx(0, abs=1e-6)
    assert heard.same_class[0] == 1


def test_gradients_of_neighbouring_steps() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    batches = [torch.randn(16, 8) for _ in range(4)]
    kept: list[Tensor] = []
    handle = model.weight.register_post_accumulate_grad_hook(lambda p: kept.append(p.grad.double().clone()))
    recording = listen(model, batches)
    handle.remove()
    signals = recording.signals
    assert signals is not None
    for row in range(3):
        first, second = kept[row], kept[row + 1]
        assert signals.gradient_dot[row, 0] == pytest.approx((first * second).sum().item(), rel=1e-4, abs=1e-9)
        expected = (first.square().sum() + second.square().sum()).item() / 2
        assert signals.gradient_square[row, 0] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(signals.gradient_dot[3]).all()


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_computes_again_is_not_heard_again(reentrant: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), Checkpointed(reentrant))
    heard = signals_of(model, torch.randn(16, 8)).activations
    assert heard.sites == (Site("1.inner.1", "relu"),)
    assert heard.samples[0] == 16


def test_a_forward_that_raises_leaves_no_mode_behind() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no")

    model = nn.Sequential(nn.Linear(8, 8), Calls(fail))
    with pytest.raises(ValueError, match="no"):
        listen(model, [torch.randn(4, 8)])
    assert _get_current_function_mode_stack() == []
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def test_a_scripted_module_and_a_vmapped_one_train_as_ever() -> None:
    class Mapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(torch.sigmoid)(x)

    model = nn.Sequential(nn.Linear(8, 8), torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), Mapped())
    assert listen(model, [torch.randn(4, 8)]).steps == 1


def test_only_probed_steps_are_heard() -> None:
    recording = listen(Calls(torch.relu), [torch.randn(4, 8) for _ in range(9)], every=5)
    assert recording.probes.steps.tolist() == [0, 1, 2, 5]
    assert recording.signals is not None
    assert recording.signals.activations.zero.shape == (4, 1)
    assert recording.signals.activations.samples[0] == 16


def test_a_unit_that_dies_in_training_is_seen() -> None:
    model = Calls(torch.relu)
    with torch.no_grad():
        model.layer.weight.copy_(torch.eye(8))
        model.layer.bias.zero_()
    loud, quiet = torch.ones(128, 8), -torch.ones(128, 8)
    heard = signals_of(model, loud, loud, quiet, quiet, quiet).activations
    assert (heard.never_active[0], heard.samples[0]) == (1.0, 128)
