"""What the calls of a model tell of a run: its batches, its precision, its steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tests.observe.session_loops import Made, Net, Trained, batches, sgd, train
from tests.observe.sessions import assert_equal, record, watch

of = pytest.mark.parametrize


def read_ahead(loader: Any) -> Any:
    """As Accelerate does: a batch is handed out when the next one has been fetched."""
    source = iter(loader)
    current = next(source, None)
    while current is not None:
        following = next(source, None)
        yield current
        current = following


@of("workers", [0, 1])
@of("order", [iter, read_ahead], ids=["plain", "read ahead"])
def test_a_step_knows_its_batch(order: Callable[[Any], Any], workers: int) -> None:
    x, y = (torch.cat(part) for part in zip(*batches(5), strict=True))
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True, num_workers=workers)

    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = sgd(model)
        for _ in range(2):
            train(model, optimizer, order(loader))
        return Trained([model], [optimizer])

    (found,) = watch(loop).recordings
    assert found.series.batch.tolist() == [0, 1, 2, 3, 4] * 2
    assert found.series.epoch.tolist() == [0] * 5 + [1] * 5


def test_what_comes_of_no_loader_has_no_index() -> None:
    """Also where it stands in the memory in which a batch was."""

    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = sgd(model)
        for _ in DataLoader(TensorDataset(torch.randn(40, 6)), batch_size=8):
            del _
            train(model, optimizer, [(torch.randn(8, 6), torch.randint(5, (8,)))])
        return Trained([model], [optimizer])

    assert watch(loop).recordings[0].series.batch.tolist() == [-1] * 5


def test_autocast_and_mode_are_those_of_training_calls() -> None:
    def loop(made: Made) -> Trained:
        inner = Net()
        model = nn.Sequential(inner)
        optimizer = sgd(model)
        forward = inner.forward
        inner.forward = torch.autocast("cpu", torch.bfloat16)(forward)  # type: ignore[method-assign]
        with torch.no_grad():
            model.eval()(batches()[0][0])
        return train(model.train(), optimizer, batches())

    (one,) = watch(loop).watched
    assert (one.precision, one.training) == ("bf16", True)


def test_each_step_is_told_of_once_and_not_those_of_a_fork() -> None:
    told = []

    def loop(made: Made) -> Trained:
        model = Net()
        optimizer = sgd(model)
        trained = train(model, optimizer, batches(2))
        if child := os.fork():
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            return trained
        try:
            train(model, optimizer, batches(2))
        finally:
            os._exit(len(told) - 2)

    watch(loop, lambda one: told.append(one.recorder.taken))
    assert told == [1, 2]


def test_a_model_that_is_called_very_often_in_a_step_is_recorded_without_its_layers() -> None:
    def loop(made: Made) -> Trained:
        model = nn.Linear(6, 6)
        optimizer = sgd(model)
        made(model, optimizer)
        for x, _ in batches(4):
            state: Tensor = x
            for _ in range(300):
                state = state + 0.001 * model(state)
            optimizer.zero_grad()
            mse_loss(state, x).backward()
            optimizer.step()
        return Trained([model], [optimizer])

    (found,), (expected,) = watch(loop).recordings, record(loop)
    assert_equal(found.series, expected.series, "loss grad_norm")
    assert not found.probed
