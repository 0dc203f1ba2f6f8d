"""What one rank's recorder does among those of the others: all end together, and see the same."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import gradcheck_cli.observe.recorder as recorder_module
from gradcheck_cli.config import Settings
from gradcheck_cli.drive.ranks.group import Group
from gradcheck_cli.observe.ranks.local_gradients import FSDP
from gradcheck_cli.observe.ranks.peers import RankPeers
from gradcheck_cli.observe.recorder import FLUSH_EVERY, Recorder
from gradcheck_cli.observe.recorder_settings import RecorderSettings
from gradcheck_cli.pipeline import recommend_clip
from gradcheck_cli.pipeline.preparation import ignore
from gradcheck_cli.records import Floats, Recording
from gradcheck_cli.signals import WeightSignals
from tests.distributed.conftest import Pool
from tests.distributed.test_strategies import HERE, SETTINGS, case, recordings

STRATEGIES = ("ddp", "fsdp2", "none")
LONGER = replace(SETTINGS, steps=12)


def by_strategy(settings: Settings, **given: Any) -> list[Any]:
    return [case("troubled", replace(settings, strategy=strategy), **given) for strategy in STRATEGIES]


def endings(found: list[list[Recording]]) -> list[list[tuple[int, str]]]:
    return [[(one.steps, one.run.ended) for one in rank] for rank in found]


def test_what_ends_one_rank_ends_all_after_the_same_step(ranks: Pool) -> None:
    stop = replace(LONGER, stop_above=1000.0)
    cases = [
        *by_strategy(LONGER, trouble="interrupt"),
        *by_strategy(LONGER, trouble="nan"),
        *by_strategy(stop, trouble="large"),
        case("residual", replace(LONGER, strategy="none", stop_above=5.0)),
    ]
    words = ["interrupted"] * 3 + ["nonfinite-loss"] * 3 + ["stop-above"] * 3
    found = endings(ranks(2, recordings, *cases))
    assert found[0] == found[1]
    assert found[0][:-1] == [(4, word) for word in words]


def test_a_loss_that_is_not_finite_is_gone_on_from_where_that_is_asked_for(ranks: Pool) -> None:
    (found,), (also,) = ranks(2, recordings, case("troubled", replace(LONGER, keep_going=True), trouble="nan"))
    assert (found.steps, found.run.ended) == (also.steps, also.run.ended) == (12, "completed")
    assert found.ranks is not None
    assert np.isfinite(found.ranks.loss[3, 0])
    assert np.isnan(found.ranks.loss[3, 1])
    assert np.isnan(found.series.loss[3])
    assert found.ranks.nonfinite[3].tolist() == [0, 89]


def test_a_tensor_that_one_rank_changes_is_found_at_the_next_check(ranks: Pool) -> None:
    longer = replace(SETTINGS, steps=103, probe_every=0)
    cases = [
        case("troubled", replace(longer, strategy="ddp"), trouble="written", at=20),
        case("troubled", replace(SETTINGS, strategy="ddp"), trouble="written", at=2),
        case("troubled", replace(SETTINGS, strategy="none")),
        case("troubled", replace(SETTINGS, strategy="ddp")),
    ]
    found = [one.ranks for one in ranks(2, recordings, *cases)[0]]
    changed = [[(one.name, one.step, one.ranks, one.is_buffer) for one in ranks.desyncs] for ranks in found if ranks]
    assert changed[0] == [("3.bias", 50, (1,), False)]
    assert changed[1] == [("3.bias", 3, (1,), False)]
    assert {("0.weight", 0), ("3.weight", 0)} <= {one[:2] for one in changed[2]}
    assert changed[3] == []
    assert [ranks.checked for ranks in found if ranks] == [(0, 50, 100, 102), (0, 3), (0, 3), (0, 3)]


def test_thinned_rows_are_those_of_one_process(ranks: Pool) -> None:
    for strategy in ("ddp", "fsdp2"):
        settings = replace(SETTINGS, steps=40, max_recorded_steps=7, strategy=strategy)
        (found,), (also,) = ranks(2, recordings, case("residual", settings, batch_size=4))
        assert found.statistics.steps.tolist() == also.statistics.steps.tolist() == [0, 8, 16, 24, 32]
        assert found.ranks is not None
        assert found.ranks.loss.shape == (40, 2)


def advice(group: Group, settings: Settings) -> Any:
    report, error = recommend_clip(HERE + "residual", settings, ignore, group)
    assert error is None
    return report.clip, report.run.notes


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_advice_on_clipping_is_the_same_on_every_rank(ranks: Pool, strategy: str) -> None:
    given = {"batch_size": 4}
    settings = replace(SETTINGS, strategy=strategy, set=given, steps=20, verify=True, verify_against=("1.0", "zclip"))
    one, other = ranks(2, advice, settings)
    assert repr(one) == repr(other)
    runs = [(run.name, run.steps, run.ended) for run in one[0].verified]
    assert runs == [(name, 20, "completed") for name in ("unclipped", "max_norm 1.0", "zclip")]


def test_a_run_that_waits_for_stability_ends_alike(ranks: Pool) -> None:
    settings = replace(SETTINGS, strategy="ddp", set={"batch_size": 4}, steps=150, until_stable=True, probe_every=0)
    one, other = ranks(2, advice, settings)
    assert repr(one) == repr(other)


def test_modules_that_only_other_ranks_call_have_their_columns(ranks: Pool) -> None:
    found = ranks(2, recordings, case("branches", replace(SETTINGS, strategy="ddp"), batch_size=4))
    columns = [{one.name: one.probe for one in rank[0].modules} for rank in found]
    for name in ("main", "side", "last"):
        here, there = (rank[0].probes.output_rms[:, column[name]] for rank, column in zip(found, columns, strict=True))
        assert np.isfinite(here).all()
        assert np.array_equal(here, there)


class Pretended:
    """A group whose other ranks do the same as this one."""

    waited, host, size, rank = 0.0, "here", 2, 0

    def add(self, numbers: Floats) -> Floats:
        return numbers * 2

    def largest(self, numbers: Floats) -> Floats:
        return numbers


def test_memory_grows_by_at_most_100_bytes_per_parameter_and_step() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(30)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.ones(1, 2)

    def train(steps: int) -> None:
        for _ in range(steps):
            model(x).sum().backward()
            optimizer.step()

    with Recorder(model, optimizer, RecorderSettings(peers=RankPeers(Pretended(), 2, (), model))):
        train(64)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        train(256)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (after - before) / (256 * 60) <= 100


class FakeLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, 8, device="cuda"))
        self.register_buffer("seen", torch.empty((), dtype=torch.int64, device="cuda"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight)


@pytest.fixture
def scattering_backward(monkeypatch: pytest.MonkeyPatch) -> Iterator[nn.Module]:
    """The autograd engine needs a real device: this backward only hands out gradients, as FSDP2 does its own."""
    fsdp = import_module(FSDP)
    with FakeTensorMode():
        model = nn.Sequential(*(FakeLinear() for _ in range(3)))
        parameters = list(model.parameters())
        stubs = [type("Stub", (), {"sharded_param": parameter}) for parameter in parameters]

        def backward(*_: Any, **__: Any) -> None:
            sys.modules[FSDP].foreach_reduce(stubs, [torch.empty_like(one) for one in parameters])  # type: ignore[attr-defined]
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)

        monkeypatch.setattr(fsdp, "foreach_reduce", lambda *_: None)
        monkeypatch.setattr(torch.autograd, "backward", backward)
        yield model
        monkeypatch.undo()


def test_steps_on_an_accelerator_wait_for_nothing(
    scattering_backward: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any value read back from a fake tensor raises; transfers happen every FLUSH_EVERY steps only."""
    model = scattering_backward
    nothing = WeightSignals(np.ones(3), np.ones(3), np.ones(3), ())
    monkeypatch.setattr(Recorder, "_norms", lambda self: np.ones(3))  # these two are read once, before the first step
    monkeypatch.setattr(recorder_module, "measure_weights", lambda *_: nothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    peers = RankPeers(Pretended(), 2, (), model)
    with Recorder(model, optimizer, RecorderSettings(probe_every=1, peers=peers)) as recorder:
        for _ in range(FLUSH_EVERY - 1):
            with torch.no_grad():  # recording a graph needs a real device too
                loss = model(torch.empty(4, 8, device="cuda")).sum()
            loss.backward()
            optimizer.step()
        assert recorder.taken == FLUSH_EVERY - 1
        assert recorder.steps == 0
