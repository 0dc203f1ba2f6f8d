"""Variables around the user's functions."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gradcheck_cli.observe.nan.surroundings import Surroundings

COUNT = 0


class Statistics:
    def __init__(self) -> None:
        self.count, self.seen = 0, [0.0]

    def update(self) -> int:
        self.count += 1
        self.seen.append(float(self.count))
        return self.count


def counting_in_a_closure() -> Callable[[], Any]:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    return step


def counting_in_a_global() -> Callable[[], Any]:
    def step() -> int:
        global COUNT
        COUNT += 1
        return COUNT

    return step


def counting_in_a_dict() -> Callable[[], Any]:
    state = {"step": 0, "history": [1]}

    def step() -> Any:
        state["step"] += 1  # type: ignore[operator]
        state["history"].append(2)  # type: ignore[attr-defined]
        return state["step"], len(state["history"])  # type: ignore[arg-type]

    return step


def own_object() -> Callable[[], Any]:
    statistics = Statistics()
    return lambda: (statistics.update(), list(statistics.seen))


def bound_method() -> Callable[[], Any]:
    return Statistics().update


def in_a_function_that_is_called() -> Callable[[], Any]:
    inner = counting_in_a_closure()
    return lambda: inner()


def in_a_partial() -> Callable[[], Any]:
    return functools.partial(counting_in_a_closure())


def cycle() -> Callable[[], Any]:
    batches = itertools.cycle(torch.arange(3.0))
    return lambda: float(next(batches))


def list_iterator() -> Callable[[], Any]:
    numbers = iter(list(range(100)))
    return lambda: next(numbers)


def torch_generator() -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(3)
    return lambda: float(torch.rand((), generator=generator))


def numpy_generator() -> Callable[[], Any]:
    generator = np.random.default_rng(3)
    return lambda: float(generator.normal())


def python_generator() -> Callable[[], Any]:
    generator = random.Random(3)
    return lambda: generator.gauss(0, 1)


def tensor_in_a_closure() -> Callable[[], Any]:
    average = torch.zeros(2)
    return lambda: average.add_(1).tolist()


MAKERS = [
    counting_in_a_closure,
    counting_in_a_global,
    counting_in_a_dict,
    own_object,
    bound_method,
    in_a_function_that_is_called,
    in_a_partial,
    cycle,
    list_iterator,
    torch_generator,
    numpy_generator,
    python_generator,
    tensor_in_a_closure,
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_a_function_keeps_is_put_back(make: Callable[[], Callable[[], Any]]) -> None:
    step = make()
    step()
    kept = Surroundings([step])
    first = [step() for _ in range(5)]
    for _ in range(2):
        kept.restore()
        assert [step() for _ in range(5)] == first


def test_two_that_share_an_iterator_go_on_sharing_it() -> None:
    numbers = itertools.count()

    def one() -> int:
        return next(numbers)

    def other() -> int:
        return next(numbers)

    kept = Surroundings([one, other])
    assert [one(), other(), one()] == [0, 1, 2]
    kept.restore()
    assert [one(), other(), one()] == [0, 1, 2]


def test_resuming_gives_the_iterator_itself_back() -> None:
    """Others may hold it: a replay between two snapshots takes from copies."""
    numbers = itertools.count()
    held_elsewhere = [numbers]

    def step() -> int:
        return next(numbers)

    start = Surroundings([step])
    step()
    end = Surroundings([step])
    start.restore()
    assert step() == 0
    end.restore(resume=True)
    assert [step(), next(held_elsewhere[0])] == [1, 2]


def test_the_libraries_own_variables_are_left_alone() -> None:
    step = counting_in_a_closure()
    kept = Surroundings([step, torch.nn.functional.relu, torch.nn.CrossEntropyLoss()])
    step()
    kept.restore()
    assert step() == 1
