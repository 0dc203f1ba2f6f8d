"""No signal waits for the device: on fake cuda tensors, whatever reads a value back raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from gradcheck_cli.observe.signals.activations import measure_activation, note_activity
from gradcheck_cli.observe.signals.attention import measure_logits, measure_products, sample_logits
from gradcheck_cli.observe.signals.blocks import measure_block
from gradcheck_cli.observe.signals.noise import GradientPairs
from gradcheck_cli.observe.signals.outputs import measure_output
from gradcheck_cli.observe.signals.recurrence import by_time, by_time_packed


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


def make(*shape: int) -> Tensor:
    return torch.empty(*shape, device="cuda")


def pair() -> Tensor:
    pairs = GradientPairs()
    pairs.hold([make(300, 300), None, make(5)])
    return torch.stack(list(pairs.compare([make(300, 300), None, make(5)]).values()))  # type: ignore[arg-type]


def activity() -> Tensor:
    known = note_activity(note_activity(None, make(32, 64, 8, 8), 1), make(32, 64, 8, 8), 1)
    assert known is not None
    return known.latest()[0]


MEASURES: dict[str, Callable[[], Any]] = {
    "sigmoid": lambda: measure_activation("sigmoid", make(64, 1000), 0, 0, 1),
    "softmax": lambda: measure_activation("softmax", make(64, 1000), 0, 0, 1),
    "hardtanh": lambda: measure_activation("hardtanh", make(64, 1000), -1, 1, 1),
    "relu": lambda: measure_activation("relu", make(64, 1000), 0, 0, 1),
    "activity": activity,
    "attention": lambda: measure_products((make(2, 4, 9, 8),) * 3, {"is_causal": True}),
    "attention weights": lambda: measure_logits(sample_logits(make(2, 4, 200, 200))),
    "block": lambda: measure_block(make(4, 9, 16), make(4, 9, 16), tokens_first=True),
    "output": lambda: measure_output(make(32, 10), make(32, 4, 4))[0],  # type: ignore[index]
    "time": lambda: by_time(make(4, 300, 8), 1),
    "packed time": lambda: by_time_packed(make(9, 8), [4, 3, 2]),
    "gradients": pair,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_stays_on_the_device(name: str) -> None:
    measured = MEASURES[name]()
    terms = (measured,) if isinstance(measured, Tensor) else measured
    assert {term.device.type for term in terms if term is not None} == {"cuda"}


def test_reading_a_value_back_would_raise() -> None:
    with pytest.raises(DataDependentOutputException):
        make(3).sum().item()
