"""A snapshot puts everything back that training changes: the same steps then give the same numbers, bit by bit."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.amp import GradScaler

from gradcheck_cli.drive.loop import LoopSettings, make_scaler
from gradcheck_cli.drive.workload import Workload
from gradcheck_cli.observe.nan.births import Births
from gradcheck_cli.observe.nan.randomness import RandomState
from gradcheck_cli.observe.nan.snapshot import Snapshot
from gradcheck_cli.tracing.session import Session
from tests.observe.test_neutrality import assert_same
from tests.observe.workloads import WORKLOADS
from tests.tracing.hunts import CPU
from tests.tracing.test_neutrality import drawing, state_of, stateful

OFF = GradScaler("cpu", enabled=False)


def train(session: Session, steps: int) -> Any:
    """Train some steps and say what came of it; parameters by value."""
    from gradcheck_cli.drive.batches import windows
    from gradcheck_cli.drive.loop import run

    loop = LoopSettings(CPU, session.loop.precision, steps)
    batches = list(session.workload.dataloader)
    for _ in run(session.workload, windows(batches, 1), loop, scaler=session.scaler):
        pass
    return copy.deepcopy(state_of(session.workload, session.scaler))


def session_of(make: Callable[[], Workload], precision: str = "fp32") -> Session:
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    loop, births = LoopSettings(CPU, precision), Births()
    with births.noted():
        workload = make()
    return Session(workload, loop, make_scaler(loop), frozenset(), births)


KINDS = {name: make for name, make in WORKLOADS.items() if name != "compiled"} | {
    "drawing": drawing,
    "stateful": stateful,
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_steps_again_give_the_same(name: str, precision: str) -> None:
    if precision == "fp16" and name in ("complex", "tied", "stateful"):
        pytest.skip("torch has no fp16 of this on the CPU")
    session = session_of(KINDS[name], precision)
    train(session, 2)
    snapshot = session.snapshot()
    first = train(session, 3)
    for _ in range(2):
        snapshot.restore()
        assert_same(first, train(session, 3))


def test_taken_again_it_forgets_the_first() -> None:
    session = session_of(WORKLOADS["mixed"])
    snapshot = session.snapshot()
    train(session, 2)
    snapshot.take()
    first = train(session, 2)
    snapshot.restore()
    assert_same(first, train(session, 2))


def test_two_snapshots_do_not_disturb_each_other() -> None:
    session = session_of(stateful)
    early = session.snapshot()
    first = train(session, 2)
    late = session.snapshot()
    second = train(session, 2)
    early.restore()
    assert_same(first, train(session, 2))
    late.restore()
    assert_same(second, train(session, 2))


def test_accumulated_gradients_come_back() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    snapshot = Snapshot([model], [], None, OFF)
    gradient = model.weight.grad.clone()  # type: ignore[union-attr]
    model(torch.ones(1, 2)).sum().backward()
    snapshot.restore()
    assert torch.equal(model.weight.grad, gradient)  # type: ignore[arg-type]
    model(torch.ones(1, 2)).sum().backward()
    snapshot.restore()
    assert torch.equal(model.weight.grad, gradient), "what is accumulated must not reach the snapshot"  # type: ignore[arg-type]
    fresh = Snapshot([nn.Linear(2, 1)], [], None, OFF)
    fresh.restore()


def test_the_mode_comes_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 1))
    model[0].eval()
    snapshot = Snapshot([model], [], None, OFF)
    model.eval(), model[0].train()
    snapshot.restore()
    assert [module.training for module in model.modules()] == [True, False, True]


# Identity


class Pair(NamedTuple):
    first: Tensor
    second: Any


def test_objects_stay_the_same_ones() -> None:
    """The user's code may hold any of them."""
    model: Any = nn.Linear(2, 2)
    shared = torch.ones(3)
    model.register_buffer("old", torch.zeros(3))
    held = {
        "tensor": shared,
        "list": [1, shared],
        "dict": {"inner": [shared]},
        "ordered": OrderedDict(a=1),
        "default": defaultdict(list, a=[1]),
        "deque": deque([1], maxlen=3),
        "set": {1},
        "array": np.ones(2),
        "pair": Pair(shared, [2]),
    }
    vars(model).update(held)
    parameters, old = list(model.parameters()), model.old
    snapshot = Snapshot([model], [], None, OFF)
    model.old = torch.ones(3)
    shared.fill_(5), model.list.append(3), model.dict["inner"].clear(), model.ordered.clear()
    model.default["b"].append(1), model.deque.extend([7, 8, 9]), model.set.add(2), model.array.fill(7)
    model.pair.second.append(9)
    model.weight = nn.Parameter(torch.zeros(2, 2))
    model.new = 1
    snapshot.restore()
    assert [*map(id, model.parameters())] == [*map(id, parameters)]
    assert model.old is old
    assert all(vars(model)[name] is value or name == "pair" for name, value in held.items())
    assert model.pair.first is shared
    assert torch.equal(shared, torch.ones(3))
    assert model.list == [1, shared]
    assert model.dict == {"inner": [shared]}
    assert (model.ordered, model.default, model.set) == (OrderedDict(a=1), {"a": [1]}, {1})
    assert (list(model.deque), model.deque.maxlen, model.default.default_factory) == ([1], 3, list)
    assert model.array.tolist() == [1, 1]
    assert model.pair.second == [2]
    assert not hasattr(model, "new")


def test_a_value_that_was_put_into_a_parameter_goes_out_again() -> None:
    """`p.data = new` gives a parameter another memory; who shares the old one must see the old one."""
    model = nn.Linear(2, 2)
    view = model.weight.data[0]
    snapshot = Snapshot([model], [], None, OFF)
    model.weight.data = torch.full((2, 2), 7.0)
    snapshot.restore()
    assert not (model.weight == 7).any()
    model.weight.data.fill_(3)
    assert (view == 3).all()


def test_a_containers_own_items_do_not_make_it_endless() -> None:
    model: Any = nn.Linear(1, 1)
    model.loop = [1]
    model.loop.append(model.loop)
    snapshot = Snapshot([model], [], None, OFF)
    model.loop.append(3)
    snapshot.restore()
    assert len(model.loop) == 2
    assert model.loop[1] is model.loop


def test_hidden_state_in_a_graph_is_kept_as_it_is() -> None:
    model: Any = nn.Linear(2, 2)
    model.hidden = model(torch.ones(1, 2))
    hidden = model.hidden
    snapshot = Snapshot([model], [], None, OFF)
    model.hidden = None
    snapshot.restore()
    assert model.hidden is hidden
    hidden.sum().backward()  # nothing was written into its graph


# Random numbers

DRAWS: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.rand(3).tolist(),
    "numpy uniform": np.random.rand,
    "numpy normal": np.random.randn,
    "numpy integers": lambda: np.random.randint(1000),
    "python": random.random,
    "python normal": lambda: random.gauss(0, 1),
}


@given(st.lists(st.sampled_from(["keep", "rewind", *DRAWS]), max_size=30))
@settings(max_examples=100, deadline=None)
def test_what_is_drawn_after_a_rewind_is_what_was_drawn_then(program: list[str]) -> None:
    """Whenever it is kept and put back: NumPy keeps every second normal number outside its generator."""
    kept: list[tuple[RandomState, list[Any]]] = []
    for word in program:
        if word == "keep":
            state = RandomState()
            kept.append((state, [draw() for draw in DRAWS.values()] + [np.random.randn()]))
            state.restore()
        elif word == "rewind":
            for state, drawn in kept:
                state.restore()
                assert [draw() for draw in DRAWS.values()] + [np.random.randn()] == drawn
        else:
            DRAWS[word]()


def test_another_generator_of_numpys() -> None:
    """Not the Mersenne twister that it begins with."""
    before = np.random.mtrand._rand._bit_generator  # type: ignore[attr-defined]
    np.random.set_bit_generator(np.random.PCG64(3))  # type: ignore[attr-defined]
    try:
        state = RandomState()
        drawn = [np.random.randn() for _ in range(3)]
        state.restore()
        assert [np.random.randn() for _ in range(3)] == drawn
    finally:
        np.random.set_bit_generator(before)  # type: ignore[attr-defined]
    state = RandomState()
    drawn = [np.random.randn() for _ in range(3)]
    state.restore()
    assert [np.random.randn() for _ in range(3)] == drawn
