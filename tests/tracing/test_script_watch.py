"""The first run of nan-trace on a script: what it looks at."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from torch import nn

from gradcheck_cli.observe.store import Store
from gradcheck_cli.observe.watched import Watched
from gradcheck_cli.records import Series
from gradcheck_cli.tracing.script_replay import QUIET
from gradcheck_cli.tracing.script_watch import FaultWatch, Span

STEPS = 600


def train(steps: int, bad_step: int = -1, value: float = nan) -> list[Span]:
    """The spans that are found when each step is looked at."""
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = []

    def stepped(one: Watched) -> None:
        found.append(session.look(one))

    with FaultWatch(QUIET, stepped) as session:
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(torch.full((4, 3), value if step == bad_step else 1.0)).square().mean()
            loss.backward()
            optimizer.step()
            if any(found):
                break
    return [span for span in [*found, session.find()] if span]


def test_each_step_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The series of a long script is not gone through again at every look."""
    looked_at = 0
    make_series = Store.make_series

    def counted(store: Store, first: int = 0) -> Series:
        nonlocal looked_at
        series = make_series(store, first)
        looked_at += len(series)
        return series

    monkeypatch.setattr(Store, "make_series", counted)
    assert train(STEPS) == []
    assert STEPS <= looked_at <= 2 * STEPS


@pytest.mark.parametrize("bad_step", [0, 5, 16, 40])
@pytest.mark.parametrize("value", [nan, inf])
def test_the_step_is_found(bad_step: int, value: float) -> None:
    span = train(60, bad_step, value)[0]
    assert (span.model, span.last) == (0, bad_step)
    assert span.first <= bad_step
    assert span.sinks
