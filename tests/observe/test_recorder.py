"""What is recorded, against values worked out by hand in the same training."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from gradcheck_cli.config import Settings
from gradcheck_cli.diagnose.diagnosis import diagnose
from gradcheck_cli.drive.batches import windows
from gradcheck_cli.drive.loop import LoopSettings, run
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.judgement import make_report
from gradcheck_cli.observe import recorder as recorder_module
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.records import Recording, RunInfo
from gradcheck_cli.signals import WeightSignals
from tests.observe.workloads import WORKLOADS, Checkpointed, Switching, Tied, classify, language, vectors

CPU = torch.device("cpu")
FIELDS = ("norm", "mean", "std", "max_abs", "zero_fraction")
RUN = RunInfo("train.py:build", "cpu", "fp32", 0)


def record(workload: Workload, steps: int = 5, accumulate: int = 1, **settings: Any) -> Recording:
    loop = LoopSettings(
        CPU, steps=steps, precision=settings.pop("precision", "fp32"), max_norm=settings.pop("clip", None)
    )
    with Recorder(workload.model, workload.optimizer, RecorderSettings(**settings)) as recorder:
        for _ in run(workload, windows(workload.dataloader, accumulate), loop, recorder.inspect):
            pass
    return recorder.recording(RUN)


class Copies:
    """Gradients, parameters and activations as plain hooks see them: a second opinion on the recorder."""

    def __init__(self, workload: Workload) -> None:
        self.gradients: list[dict[str, Tensor | None]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.model = workload.model
        workload.optimizer.register_step_pre_hook(lambda *_: self.copy())

    def copy(self) -> None:
        named = dict(self.model.named_parameters())
        self.gradients.append({n: None if p.grad is None else p.grad.detach().clone() for n, p in named.items()})
        self.weights.append({name: parameter.detach().clone() for name, parameter in named.items()})


def dense(tensor: Tensor) -> np.ndarray[Any, Any]:
    strided = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return np.abs(strided.numpy().astype(np.complex128)) if strided.is_complex() else strided.double().numpy()


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "compiled"])
def test_statistics_are_those_of_the_gradients(name: str) -> None:
    torch.manual_seed(0)
    workload = WORKLOADS[name]()
    copies = Copies(workload)
    recording = record(workload)
    statistics = recording.statistics
    for step, (gradients, weights) in enumerate(zip(copies.gradients, copies.weights, strict=True)):
        present = {n: dense(g) for n, g in gradients.items() if g is not None}
        norm = np.sqrt(sum(np.sum(values**2) for values in present.values()))
        assert recording.series.grad_norm[step] == pytest.approx(norm, rel=1e-9)
        for column, parameter in enumerate(recording.parameters):
            real_name = parameter.name
            own = np.linalg.norm(dense(weights[real_name]))
            assert statistics.parameter_norm[step, column] == pytest.approx(own, rel=1e-9)
            assert statistics.has_gradient[step, column] == (real_name in present)
            if real_name in present:
                values = present[real_name]
                row = [
                    getattr(statistics, f)[step, column] for f in ("norm", "mean", "std", "max_abs", "zero_fraction")
                ]
                expected = [
                    np.linalg.norm(values),
                    values.mean(),
                    values.std(),
                    np.abs(values).max(),
                    (values == 0).mean(),
                ]
                np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-12)
            else:
                assert np.isnan(statistics.norm[step, column])


def test_loss_is_the_mean_over_the_window_and_the_last_window_is_short() -> None:
    """Ten batches in windows of four: the third step has two, and divides by two."""
    torch.manual_seed(0)
    workload = classify(nn.Linear(6, 5))
    model = workload.model
    expected_loss, expected_norm = [], []

    def by_hand(optimizer: Any, *_: Any) -> None:
        step = len(expected_loss)
        window = vectors()[4 * step : 4 * step + 4]
        losses = [functional.cross_entropy(model(x), y) for x, y in window]
        gradients = torch.autograd.grad(torch.stack(losses).mean(), list(model.parameters()))
        expected_loss.append(float(torch.stack(losses).mean().detach()))
        expected_norm.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    workload.optimizer.register_step_pre_hook(by_hand)
    series = record(workload, steps=3, accumulate=4).series
    np.testing.assert_allclose(series.loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(series.grad_norm, expected_norm, rtol=1e-6)
    assert series.batch.tolist() == [0, 4, 8]
    assert series.epoch.tolist() == [0, 0, 0]


def test_norms_are_taken_before_and_after_clipping() -> None:
    torch.manual_seed(0)
    free = record(classify(nn.Linear(6, 5)), steps=1).series
    torch.manual_seed(0)
    clipped = record(classify(nn.Linear(6, 5)), steps=1, clip=float(free.grad_norm[0]) / 3).series
    assert clipped.grad_norm[0] == free.grad_norm[0] == free.grad_norm_clipped[0]
    assert clipped.grad_norm_clipped[0] == pytest.approx(free.grad_norm[0] / 3, rel=1e-5)


def test_fp16_gradients_are_measured_unscaled_and_skipped_steps_are_marked() -> None:
    torch.manual_seed(0)
    plain = record(classify(nn.Linear(6, 5)), steps=1)
    torch.manual_seed(0)
    half = record(classify(nn.Linear(6, 5)), steps=1, precision="fp16")
    assert half.series.loss[0] == pytest.approx(plain.series.loss[0], rel=1e-2)
    assert half.series.grad_norm[0] == pytest.approx(plain.series.grad_norm[0], rel=1e-2)
    assert half.series.loss_scale[0] == 65536.0
    assert half.probes.output_grad_rms[0, 0] == pytest.approx(plain.probes.output_grad_rms[0, 0], rel=1e-2)
    overflowing = record(classify(nn.Linear(6, 5), [(x * 3000, y) for x, y in vectors()]), 12, precision="fp16")
    skipped = overflowing.series.skipped
    assert skipped[0]
    assert not skipped[-1]
    assert (overflowing.statistics.nonfinite[skipped] > 0).any(axis=1).all()
    assert np.all(np.diff(overflowing.series.loss_scale)[skipped[:-1]] < 0)


def test_learning_rates_follow_the_schedule() -> None:
    lr = record(classify(nn.Linear(6, 5)), steps=4).series.lr
    np.testing.assert_allclose(lr[:, 0], [0.01 * (0.1 + 0.9 * step / 8) for step in range(4)])


def test_update_ratio_is_the_change_over_the_parameter() -> None:
    torch.manual_seed(0)
    workload = classify(nn.Linear(6, 5))
    copies = Copies(workload)
    recording = record(workload, steps=3)
    for column, parameter in enumerate(recording.parameters):
        before, after = copies.weights[0][parameter.name], copies.weights[1][parameter.name]
        expected = float((after - before).double().norm() / before.double().norm())
        assert recording.probes.update_ratio[0, column] == pytest.approx(expected, rel=1e-5)
        assert recording.probes.parameter_max[0, column] == pytest.approx(float(after.abs().max()), rel=1e-6)
        last = workload.model.get_parameter(parameter.name)
        assert recording.final_parameter_norm[column] == pytest.approx(float(last.detach().double().norm()), rel=1e-9)


def rms(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_and_their_gradients_also_under_checkpointing(reentrant: bool) -> None:
    """The same numbers as without checkpointing: recomputed layers are counted once."""
    torch.manual_seed(0)
    model = Checkpointed(reentrant)
    x, y = vectors(1)[0]
    hidden = model.first(x)
    linear = model.block[0](hidden)
    output = model.last(model.block[1](linear))
    for tensor in (hidden, linear, output):
        tensor.retain_grad()
    functional.cross_entropy(output, y).backward()
    recording = record(classify(model), steps=1)
    assert [module.name for module in recording.probed] == ["first", "block.0", "last"]
    expected = [rms(tensor) for tensor in (hidden, linear, output)]
    np.testing.assert_allclose(recording.probes.output_rms[0], expected, rtol=1e-6)
    gradients = [rms(tensor.grad) for tensor in (hidden, linear, output) if tensor.grad is not None]
    np.testing.assert_allclose(recording.probes.output_grad_rms[0], gradients, rtol=1e-5)


def test_modules_with_tuple_and_mapping_outputs_are_probed() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"hidden": [x * self.scale], "text": "no tensor"}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.named, self.head = nn.GRU(6, 8), Named(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.named(self.rnn(x)[0])["hidden"][0])

    recording = record(classify(Model()), steps=3)
    assert [module.name for module in recording.probed] == ["rnn", "named", "head"]
    assert np.isfinite(recording.probes.output_rms).all()
    assert (recording.probes.output_grad_rms > 0).all()


def test_tied_parameters_count_once() -> None:
    recording = record(language(Tied()))
    tied = next(parameter for parameter in recording.parameters if parameter.aliases)
    assert (tied.name, tied.aliases) == ("embedding.weight", ("out.weight",))


def test_parameters_used_on_some_steps_frozen_and_never() -> None:
    recording = record(classify(Switching()), steps=6)
    share = dict(
        zip([p.name for p in recording.parameters], recording.statistics.has_gradient.mean(axis=0), strict=True)
    )
    assert share["experts.0.weight"] == share["experts.1.weight"] == 0.5
    assert share["experts.2.weight"] == share["frozen.weight"] == 0
    assert np.isfinite(recording.statistics.parameter_norm).all()


@pytest.mark.parametrize("held_back", [False, True])
def test_released_parameters_are_measured_from_their_first_gradient_on(held_back: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD((model[2] if held_back else model).parameters(), lr=0.1)
    copies, told = [], []
    with Recorder(model, optimizer, RecorderSettings(probe_every=1, tell=told.append)) as recorder:
        for step in range(6):
            if step == 3:
                model[0].requires_grad_(True)
                if held_back:
                    optimizer.add_param_group({"params": list(model[0].parameters())})
            copies.append([parameter.detach().clone() for parameter in model.parameters()])
            optimizer.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            optimizer.step()
    copies.append([parameter.detach().clone() for parameter in model.parameters()])
    recording = recorder.recording(RUN)
    assert [info.name for info in recording.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    norms = np.array([[float(tensor.norm()) for tensor in row] for row in copies])
    moves = np.array([[float((new - old).norm()) for new, old in zip(*pair, strict=True)] for pair in pairwise(copies)])
    ratio = np.where(np.arange(6)[:, None] < [[3, 3, 0, 0]], np.nan, moves / norms[:-1])
    np.testing.assert_allclose(recording.probes.update_ratio, ratio, rtol=1e-6)
    np.testing.assert_allclose(recording.statistics.parameter_norm, norms[:-1], rtol=1e-6)
    assert ["update_ratio" in step.layers["0"] for step in told] == [False] * 3 + [True] * 3
    released = make_report("profile", recording, Settings())
    assert released.trainable_count == released.parameter_count == 21
    (row,) = [layer for layer in released.layers if layer.name == "0"]
    assert np.isfinite(row.update_ratio)


def test_compiled_modules_are_left_alone_unless_run_eagerly() -> None:
    torch._dynamo.reset()
    hidden = record(WORKLOADS["compiled"](), steps=3)
    assert all(module.compiled and module.probe is None for module in hidden.modules)
    assert (hidden.series.grad_norm > 0).all()
    assert [parameter.name for parameter in hidden.parameters][:1] == ["0.weight"]
    with torch.compiler.set_stance("force_eager"):
        seen = record(WORKLOADS["compiled"](), steps=3, eager=True)
    assert [module.name for module in seen.probed] == ["0", "2"]


def test_what_a_modules_own_hook_makes_of_its_output_is_what_is_probed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].register_forward_hook(lambda module, args, output: 10 * output)
    x = torch.randn(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Recorder(model, optimizer) as recorder:
        model(x).sum().backward()
        optimizer.step()
    hidden = model[0](x)
    expected = [float(one.square().mean().sqrt()) for one in (hidden, model[1](hidden))]
    probes = recorder.recording(RUN).probes
    np.testing.assert_allclose(probes.output_rms[0], expected, rtol=1e-6)
    gradient = model[1].weight.sum(0)
    np.testing.assert_allclose(probes.output_grad_rms[0, 0], float(gradient.square().mean().sqrt()), rtol=1e-6)
    assert len(model[0]._forward_hooks) == 1


def test_probes_come_on_the_first_three_steps_and_then_every_nth() -> None:
    assert record(classify(nn.Linear(6, 5)), steps=12, probe_every=4).probes.steps.tolist() == [0, 1, 2, 4, 8]
    assert record(classify(nn.Linear(6, 5)), steps=12, probe_every=0).probes.steps.tolist() == []


@pytest.mark.parametrize(("accumulate", "expected"), [(1, [4, 4, 4, 2, 4]), (2, [8, 6, 8, 6, 8])])
def test_the_examples_of_each_step_are_counted(accumulate: int, expected: list[int]) -> None:
    data = [(torch.randn(size, 3), torch.randn(size, 1)) for size in (4, 4, 4, 2)]
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    workload = Workload(model, data, lambda model, batch: functional.mse_loss(model(batch[0]), batch[1]), optimizer)
    assert record(workload, accumulate=accumulate).series.examples.tolist() == expected


def test_nonfinite_inputs_are_found_with_their_place() -> None:
    data = vectors()
    data[2][0][3, 1] = float("nan")
    recording = record(classify(nn.Linear(6, 5), data), steps=4, keep_going=True)
    assert recording.series.nonfinite_inputs.tolist() == [0, 0, 1, 0]
    assert recording.nonfinite_input == "batch 2: 1 of 48 elements of batch[0], the first nan at [3, 1]"


def test_a_nonfinite_loss_ends_the_recording_at_that_step() -> None:
    data = vectors()
    data[2][0][3, 1] = float("nan")
    recording = record(classify(nn.Linear(6, 5), data), steps=8)
    assert np.isfinite(recording.series.loss).tolist() == [True, True, False]


def test_the_recording_ends_at_the_first_norm_above_the_limit() -> None:
    torch.manual_seed(0)
    norms = record(classify(nn.Linear(6, 5)), steps=8).series.grad_norm
    torch.manual_seed(0)
    limit = float(np.sort(norms)[-2])
    stopped = record(classify(nn.Linear(6, 5)), steps=8, stop_above=limit).series.grad_norm
    np.testing.assert_array_equal(stopped, norms[: int(np.argmax(norms)) + 1])


def test_long_recordings_are_thinned_evenly_and_the_series_stays_whole() -> None:
    recording = record(classify(nn.Linear(6, 5)), steps=100, max_rows=20, probe_every=2)
    steps = recording.statistics.steps
    assert len(steps) <= 20
    assert len(recording.probes.steps) <= 20
    assert len(set(np.diff(steps))) == 1
    assert len(recording.series) == 100


def test_memory_grows_by_at_most_100_bytes_per_parameter_and_step() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(60)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.ones(1, 2)

    def train(steps: int) -> None:
        for _ in range(steps):
            model(x).sum().backward()
            optimizer.step()

    with Recorder(model, optimizer):
        train(64)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        train(256)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (after - before) / (256 * 120) <= 100


@pytest.fixture
def backward_without_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """The autograd engine needs a real device: this backward only hands out gradients."""
    with FakeTensorMode():
        model = nn.Sequential(*(FakeLinear() for _ in range(3)))
        parameters = list(model.parameters())

        def backward(*_: Any, **__: Any) -> None:
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)

        monkeypatch.setattr(torch.autograd, "backward", backward)
        yield model
        monkeypatch.undo()


class FakeLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, 8, device="cuda"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight)


def test_steps_on_an_accelerator_wait_for_nothing(
    backward_without_engine: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any value read back from a fake tensor raises; transfers happen every FLUSH_EVERY steps only."""
    model = backward_without_engine
    nothing = WeightSignals(np.ones(3), np.ones(3), np.ones(3), ())
    monkeypatch.setattr(Recorder, "_norms", lambda self: np.ones(3))  # these two are read once, before the first step
    monkeypatch.setattr(recorder_module, "measure_weights", lambda *_: nothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    with Recorder(model, optimizer, RecorderSettings(probe_every=1)) as recorder:
        for _ in range(recorder_module.FLUSH_EVERY - 1):
            with torch.no_grad():  # recording a graph needs a real device too
                loss = model(torch.empty(4, 8, device="cuda")).sum()
            loss.backward()
            optimizer.step()
        assert recorder.steps == 0
        assert len(recorder._drafts) == recorder_module.FLUSH_EVERY - 1


def test_a_layer_replaced_after_the_optimizer_was_made_is_named_as_such() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))
    workload = classify(model)
    model[1] = nn.Linear(8, 5)
    diagnosis = diagnose(record(workload))
    stale = next(finding for finding in diagnosis.findings if finding.code == "GC103")
    assert "not part of the model" in stale.message
    assert {finding.layer for finding in diagnosis.findings if finding.code == "GC106"} == {"1"}
