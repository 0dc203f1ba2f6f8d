"""A session finds what trains in a loop that it knows nothing of, and records it as a recorder that was told would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.observe import session_loops as loops
from tests.observe import unusual_loops
from tests.observe.session_loops import Made, Net, Trained, batches, sgd, train
from tests.observe.sessions import Loop, assert_bare, assert_equal, nobody, record, state_of, watch

ONE: list[Loop] = [
    loops.plain,
    loops.accumulation_with_a_short_window,
    loops.fp16_scaler_and_clip,
    loops.clip_imported_by_name,
    loops.lbfgs,
    loops.truncated_bptt,
    loops.optimizer_after_evaluation,
    loops.validation_scheduler_and_frozen_layer,
    loops.ema_teacher,
    loops.compiled,
    loops.compiled_in_place,
    unusual_loops.parameters_in_no_call,
    unusual_loops.tensors_without_a_module,
    unusual_loops.copied_optimizer,
    unusual_loops.submodules_of_nothing,
]
TWO: list[Loop] = [unusual_loops.gan, unusual_loops.actor_critic]
FOUND_AT_THE_FIRST_BACKWARD = (
    unusual_loops.parameters_in_no_call,
    unusual_loops.submodules_of_nothing,
    loops.truncated_bptt,
)
of = pytest.mark.parametrize
by_name: Any = lambda loop: loop.__name__  # noqa: E731


@of("loop", ONE, ids=by_name)
def test_a_loop_is_recorded_as_by_a_recorder_that_was_told(loop: Loop) -> None:
    (expected,), (found,) = record(loop), watch(loop).recordings
    assert found.steps == expected.steps > 2
    assert found.parameters == expected.parameters
    assert_equal(found.series, expected.series, "loss grad_norm grad_norm_clipped lr skipped loss_scale")
    assert_equal(found.statistics, expected.statistics, "norm mean std max_abs zero_fraction parameter_norm")
    assert_equal(found.probes, expected.probes, "steps update_ratio parameter_max")
    assert [m.name for m in found.probed] == [m.name for m in expected.probed]
    first = 1 if loop in FOUND_AT_THE_FIRST_BACKWARD else 0
    for name in ("output_rms", "output_grad_rms"):
        values, told = getattr(found.probes, name), getattr(expected.probes, name)
        np.testing.assert_allclose(values[first:], told[first:], rtol=1e-12, err_msg=name)


@of("loop", TWO, ids=by_name)
def test_two_models_have_their_own_losses_and_gradients(loop: Loop) -> None:
    seen, expected = watch(loop), record(loop)
    told = {optimizer: number for number, optimizer in enumerate(seen.trained.optimizers)}
    assert {one.optimizer for one in seen.watched} == set(told)
    names = {"gan": ["generator", "critic"], "actor_critic": ["critic", "actor"]}
    assert [one.name for one in seen.watched] == names[loop.__name__]
    for one, found in zip(seen.watched, seen.recordings, strict=True):
        number = told[one.optimizer]
        assert found.parameters == expected[number].parameters
        np.testing.assert_allclose(found.series.loss, seen.trained.losses[number], rtol=1e-6)
        np.testing.assert_allclose(found.series.grad_norm, seen.trained.norms[number], rtol=1e-6)
        assert_equal(found.series, expected[number].series, "grad_norm_clipped lr skipped")
        assert_equal(found.probes, expected[number].probes, "update_ratio")


@of("loop", [*ONE, *TWO], ids=by_name)
def test_what_is_trained_is_bit_identical_and_nothing_stays(loop: Loop) -> None:
    torch.manual_seed(0)
    bare = state_of(loop(nobody))
    seen = watch(loop)
    for one, other in zip(bare, state_of(seen.trained), strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert_bare(seen.trained.models)


@of("where", ["forward", "backward", "step", "stepped"])
def test_nothing_stays_when_the_loop_raises(where: str) -> None:
    model = Net()

    def fail(*_: Any) -> None:
        raise RuntimeError("the script's")

    def loop(made: Made) -> Trained:
        optimizer, waiting = sgd(model), sgd(Net())  # which keeps the search going
        train(model, optimizer, batches(1))
        if where == "forward":
            handles.append(model.last.register_forward_hook(fail))
        if where == "backward":
            handles.append(model.last.weight.register_hook(fail))
        if where == "step":
            handles.append(waiting.register_step_pre_hook(fail))
            waiting.step()
        return train(model, optimizer, batches(1))

    handles: list[Any] = []
    with pytest.raises(RuntimeError, match="the script's"):
        watch(loop, fail if where == "stepped" else lambda one: None)
    for handle in handles:
        handle.remove()
    assert_bare([model])


def test_a_clip_by_a_method_of_fsdp_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own code needs a process group; what matters is that its gradients are measured before it runs."""

    def clip(module: Net, max_norm: float) -> None:
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()

    fsdp = pytest.importorskip("torch.distributed.fsdp").FullyShardedDataParallel
    monkeypatch.setattr(fsdp, "clip_grad_norm_", clip)

    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = sgd(model)
        trained = Trained([model], [optimizer])
        for x, y in batches(3):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            trained.note(0, loss)
            fsdp.clip_grad_norm_(model, max_norm=0.25)
            optimizer.step()
        return trained

    seen = watch(loop)
    (recording,) = seen.recordings
    np.testing.assert_allclose(recording.series.grad_norm, seen.trained.norms[0], rtol=1e-6)
    np.testing.assert_array_equal(recording.series.grad_norm_clipped, 0)
    assert seen.watched[0].recorder.max_norm == 0.25
    assert fsdp.clip_grad_norm_ is clip


def test_learning_rates_of_a_group_that_is_added_later() -> None:
    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = torch.optim.SGD(model.last.parameters(), lr=0.1)
        train(model, optimizer, batches(3))
        optimizer.add_param_group({"params": list(model.first.parameters()), "lr": 0.01})
        return train(model, optimizer, batches(2))

    (recording,) = watch(loop).recordings
    np.testing.assert_array_equal(recording.series.lr, [[0.1, np.nan]] * 3 + [[0.1, 0.01]] * 2)
