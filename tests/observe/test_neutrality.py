"""Training is bit-identical with and without a recorder, in every mode, and nothing of it stays behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradcheck_cli.drive.batches import windows
from gradcheck_cli.drive.loop import LoopSettings, run
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.errors import UserCodeError
from gradcheck_cli.observe.recorder import Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.records import RunInfo
from tests.observe.workloads import WORKLOADS, classify, vectors

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp16 with a scaler": {"precision": "fp16"},
    "accumulation": {"accumulate": 4},
    "clipping": {"max_norm": 0.5},
    "everything": {"precision": "fp16", "accumulate": 3, "max_norm": 0.1},
}
CPU = torch.device("cpu")


def state_after(make: Callable[[], Workload], mode: dict[str, Any], recorded: bool) -> dict[str, Any]:
    """Parameters, buffers, gradients, optimizer state and random state after some steps."""
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    torch._dynamo.reset() if make is WORKLOADS["compiled"] else None
    workload = make()
    settings = LoopSettings(CPU, steps=7, **{key: value for key, value in mode.items() if key != "accumulate"})
    source = windows(workload.dataloader, mode.get("accumulate", 1))
    if recorded:
        with Recorder(workload.model, workload.optimizer, RecorderSettings(probe_every=2)) as recorder:
            list(run(workload, source, settings, recorder.inspect))
        assert recorder.recording(RunInfo("", "cpu", "fp32", 0)).steps == 7
    else:
        list(run(workload, source, settings))
    return {
        "weights": workload.model.state_dict(),
        "gradients": {name: p.grad for name, p in workload.model.named_parameters()},
        "optimizer": workload.optimizer.state_dict(),
        "random": (torch.get_rng_state(), str(np.random.get_state()), random.getstate()),
    }


def bits(tensor: Tensor) -> bytes:
    """Its bytes: NaN equals NaN, and 0 differs from -0."""
    dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return dense.detach().contiguous().numpy().tobytes()


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Bit by bit, in nested containers."""
    if isinstance(one, Tensor):
        dense, also = (t.to_dense() if t.layout is not torch.strided else t for t in (one, other))
        assert torch.equal(
            dense.view(torch.uint8) if dense.dim() else dense, also.view(torch.uint8) if dense.dim() else also
        ), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{number}")
    else:
        assert one == other, where


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WORKLOADS)
def test_bit_identical(name: str, mode: str) -> None:
    if name == "complex" and "fp16" in MODES[mode].get("precision", ""):
        pytest.skip("torch has no GradScaler for complex gradients")
    if name == "tied" and MODES[mode].get("precision") == "fp16":
        pytest.skip("torch has no LSTM in fp16 on the CPU")
    if name == "compiled" and mode not in ("fp32", "accumulation"):
        pytest.skip("compiling takes seconds; two modes show it")
    if name == "sparse" and MODES[mode].get("max_norm"):
        pytest.skip("torch cannot clip sparse gradients")
    bare = state_after(WORKLOADS[name], MODES[mode], recorded=False)
    assert_same(bare, state_after(WORKLOADS[name], MODES[mode], recorded=True))


def test_a_skipped_step_is_bit_identical_too() -> None:
    """A loss so large that fp16 gradients overflow until the scale has come down."""

    def make() -> Workload:
        return classify(nn.Linear(6, 5), [(x * 3000, y) for x, y in vectors()])

    mode = {"precision": "fp16"}
    assert_same(state_after(make, mode, recorded=False), state_after(make, mode, recorded=True))


@pytest.mark.parametrize("where", ["forward", "backward", "optimizer"])
def test_nothing_survives_an_exception(where: str) -> None:
    """conftest's fixture looks at torch; the model's own hooks are looked at here."""
    workload = classify(nn.Sequential(nn.Linear(6, 5)))
    model = workload.model

    def fail(*_: Any) -> None:
        raise RuntimeError("user code")

    handle = {
        "forward": lambda: model[0].register_forward_hook(fail),  # type: ignore[operator]
        "backward": lambda: model[0].weight.register_hook(fail),  # type: ignore[union-attr]
        "optimizer": lambda: workload.optimizer.register_step_pre_hook(fail),
    }[where]()
    steps = run(workload, windows(workload.dataloader, 1), LoopSettings(CPU))
    with pytest.raises(UserCodeError, match="user code"), Recorder(model, workload.optimizer):
        next(steps)
    handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_a_parameter_handed_out_as_output_keeps_no_hook() -> None:
    class Prompt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Parameter(torch.ones(3, 4))

        def forward(self) -> Tensor:
            return self.tokens

    model = Prompt()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer):
        model().square().sum().backward()
        optimizer.step()
    assert not model.tokens._backward_hooks
