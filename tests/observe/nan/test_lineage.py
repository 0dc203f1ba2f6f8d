"""Who wrote a bad element: random programs of writes, views and moves, against owners kept one by one in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradcheck_cli.observe.nan.tracer import Tracer
from gradcheck_cli.tape import Operation

NAN, INF = float("nan"), float("inf")
SIDE = 3
SHAPE = (SIDE, SIDE)
ELSEWHERE = -1


@dataclass
class Variable:
    """A tensor and the operation that wrote each of its elements; views of one are views of the other."""

    tensor: Tensor
    owners: np.ndarray


@dataclass
class Expected:
    """Of one operation: for each operand that is read, the writers of its NaN and of its infinite elements."""

    writers: list[tuple[tuple[int, ...], tuple[int, ...]]]


class Program:
    """Runs operations under a tracer, and keeps the books by brute force."""

    def __init__(self) -> None:
        self.tracer = Tracer(nn.Linear(1, 1), [])
        self.variables: list[Variable] = []
        self.expected: dict[int, Expected] = {}

    def fresh(self, fill: float) -> None:
        index = self.next
        self.variables.append(Variable(torch.full(SHAPE, fill), np.full(SHAPE, index)))

    @property
    def next(self) -> int:
        return len(self.tracer._operations)

    def run(
        self,
        read: Sequence[Variable],
        places: Sequence[np.ndarray],
        call: Callable[[], Tensor],
        into: Variable | None = None,
    ) -> None:
        """`places` gives for each operand read the element behind each element of the result, or ELSEWHERE."""
        before = [(v.tensor.numpy().copy(), v.owners.copy()) for v in read]
        index = self.next
        result = call()
        assert self.next == index + 1, "one operation"
        bad = ~np.isfinite(result.numpy())
        self.expected[index] = Expected([behind(*b, place[bad]) for b, place in zip(before, places, strict=True)])
        if into is None:
            self.variables.append(Variable(result, np.full(result.shape, index)))
        else:
            into.owners[...] = index


def behind(values: np.ndarray, owners: np.ndarray, places: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The owners of the NaN and of the infinite elements at these places."""
    flat, whose = values.reshape(-1), owners.reshape(-1)
    used = [place for place in places.reshape(-1).tolist() if place != ELSEWHERE]
    nan = {int(whose[place]) for place in used if np.isnan(flat[place])}
    inf = {int(whose[place]) for place in used if np.isinf(flat[place])}
    return tuple(sorted(nan)), tuple(sorted(inf))


def places_of(variable: Variable) -> np.ndarray:
    return np.arange(variable.tensor.numel()).reshape(variable.owners.shape)


# Operations: each takes the program and a source of choices.


def poison(p: Program, draw: Any) -> None:
    """Fill a part of a tensor in place with a constant: nothing is read."""
    target = draw(st.sampled_from(p.variables))
    where = draw(st.sampled_from(SLICES))
    part = Variable(target.tensor[where], target.owners[where])
    value = draw(st.sampled_from([NAN, INF, -INF, 0.0, 1.0]))
    p.run([], [], lambda: part.tensor.fill_(value), part)


def copy_part(p: Program, draw: Any) -> None:
    target, source = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables))
    rows = draw(st.sampled_from([slice(0, 1), slice(1, 3), slice(None)]))
    if np.shares_memory(target.owners, source.owners):
        return
    part = Variable(target.tensor[rows], target.owners[rows])
    read = Variable(source.tensor[rows], source.owners[rows])
    p.run([read], [places_of(read)], lambda: part.tensor.copy_(read.tensor), part)


def view(p: Program, draw: Any) -> None:
    """No operation: the same elements in another order."""
    one = draw(st.sampled_from(p.variables))
    kind = draw(st.sampled_from(["t", "back", "self"]))
    if kind == "t":
        p.variables.append(Variable(one.tensor.t(), one.owners.T))
    elif kind == "back":
        p.variables.append(Variable(one.tensor.view(one.tensor.shape), one.owners[...]))


def pointwise(p: Program, draw: Any) -> None:
    one, other = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables))
    operator = draw(st.sampled_from([torch.add, torch.mul, torch.div, torch.maximum]))
    p.run([one, other], [places_of(one), places_of(other)], lambda: operator(one.tensor, other.tensor))


def broadcast(p: Program, draw: Any) -> None:
    one, other = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables))
    row = Variable(other.tensor[0], other.owners[0])
    wide = np.broadcast_to(places_of(row), SHAPE)
    p.run([one, row], [places_of(one), wide], lambda: torch.mul(one.tensor, row.tensor))


def in_place(p: Program, draw: Any) -> None:
    one, other = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables))
    if np.shares_memory(one.owners, other.owners):
        return
    p.run([one, other], [places_of(one), places_of(other)], lambda: one.tensor.add_(other.tensor), one)


def clone(p: Program, draw: Any) -> None:
    one = draw(st.sampled_from(p.variables))
    p.run([one], [places_of(one)], one.tensor.clone)


def where(p: Program, draw: Any) -> None:
    one, other, mask = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables)), draw(masks)
    places = [np.where(mask, places_of(one), ELSEWHERE), np.where(mask, ELSEWHERE, places_of(other))]
    if one is other:
        places = [places_of(one)] * 2  # one tensor, by two names
    p.run([one, other], places, lambda: torch.where(torch.from_numpy(mask), one.tensor, other.tensor))


def masked_fill(p: Program, draw: Any) -> None:
    one, mask, value = draw(st.sampled_from(p.variables)), draw(masks), draw(st.sampled_from([NAN, -INF, 0.0]))
    kept = np.where(mask, ELSEWHERE, places_of(one))
    if draw(st.booleans()):
        p.run([one], [kept], lambda: one.tensor.masked_fill_(torch.from_numpy(mask), value), one)
    else:
        p.run([one], [kept], lambda: one.tensor.masked_fill(torch.from_numpy(mask), value))


def index_put(p: Program, draw: Any) -> None:
    one, other, rows = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables)), draw(distinct_rows)
    if np.shares_memory(one.owners, other.owners):
        return
    values = Variable(other.tensor[: len(rows)], other.owners[: len(rows)])
    kept, put = places_of(one), np.full(SHAPE, ELSEWHERE)
    kept[rows] = ELSEWHERE
    put[rows] = places_of(values)
    index = torch.tensor(rows)
    p.run([one, values], [kept, put], lambda: one.tensor.index_put_((index,), values.tensor), one)


def accumulate(p: Program, draw: Any) -> None:
    """Two values for one element: every bad one may have had a part."""
    one, other = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables))
    index = torch.tensor([0, 0, 1])
    p.run(
        [one, other],
        [np.broadcast_to(ALL, (*SHAPE, SIDE * SIDE))] * 2,
        lambda: one.tensor.index_put((index,), other.tensor, accumulate=True),
    )


def moves(p: Program, draw: Any) -> None:
    one, dim = draw(st.sampled_from(p.variables)), draw(st.sampled_from([0, 1, -1]))
    rows, table = draw(some_rows), draw(tables)
    index = torch.tensor(rows)
    places = places_of(one)
    name = draw(st.sampled_from(["gather", "index_select", "flip", "roll", "tril", "repeat", "index", "pad", "take"]))
    moved, call = {
        "gather": (np.take_along_axis(places, table, dim), lambda: one.tensor.gather(dim, torch.from_numpy(table))),
        "index_select": (np.take(places, rows, dim), lambda: one.tensor.index_select(dim, index)),
        "flip": (np.flip(places, dim), lambda: one.tensor.flip(dim)),
        "roll": (np.roll(places, 1, dim), lambda: one.tensor.roll(1, dim)),
        "tril": (np.where(np.tri(SIDE, dtype=bool), places, ELSEWHERE), lambda: one.tensor.tril()),
        "repeat": (np.tile(places, (2, 1)), lambda: one.tensor.repeat(2, 1)),
        "index": (places[rows], lambda: torch.ops.aten.index(one.tensor, [index])),
        "pad": (
            np.pad(places, ((0, 0), (1, 0)), constant_values=ELSEWHERE)[:, :-1],
            lambda: torch.constant_pad_nd(one.tensor, (1, -1), INF),
        ),
        "take": (places.reshape(-1)[table], lambda: one.tensor.take(torch.from_numpy(table))),
    }[name]
    p.run([one], [moved], call)
    if p.variables[-1].owners.shape != SHAPE:
        p.variables.pop()


def joins(p: Program, draw: Any) -> None:
    one, other, dim = draw(st.sampled_from(p.variables)), draw(st.sampled_from(p.variables)), draw(st.integers(0, 1))
    nowhere = np.full(SHAPE, ELSEWHERE)
    join, torchs = draw(st.sampled_from([(np.concatenate, torch.cat), (np.stack, torch.stack)]))
    places = [join([places_of(one), nowhere], dim), join([nowhere, places_of(other)], dim)]
    if one is other:
        places = [join([places_of(one)] * 2, dim)] * 2
    p.run([one, other], places, lambda: torchs([one.tensor, other.tensor], dim))
    p.variables.pop()


def picks(p: Program, draw: Any) -> None:
    """The largest is NaN where there is one; ties have one owner only if torch says which it took."""
    one, dim, keep = draw(st.sampled_from(p.variables)), draw(st.integers(-2, 1)), draw(st.booleans())
    name = draw(st.sampled_from(["max", "min", "sort", "topk", "default topk"]))
    results: list[Any] = []
    index = p.next
    before = one.tensor.numpy().copy(), one.owners.copy()
    results = {
        "max": lambda: one.tensor.max(dim, keep),
        "min": lambda: one.tensor.min(dim, keepdim=keep),
        "sort": lambda: one.tensor.sort(dim, descending=True),
        "topk": lambda: one.tensor.topk(2, dim),
        "default topk": lambda: one.tensor.topk(1),
    }[name]()
    assert p.next == index + 1
    dim = -1 if name == "default topk" else dim
    values, which = (result.numpy() for result in results)
    wide = which if which.ndim == 2 else np.expand_dims(which, dim)
    places = np.take_along_axis(places_of(one), wide, dim).reshape(values.shape)
    p.expected[index] = Expected([behind(*before, places[~np.isfinite(values)])])


def reduces(p: Program, draw: Any) -> None:
    """Of a reduction all bad elements may have had a part, if the result is bad."""
    one = draw(st.sampled_from(p.variables))
    p.run([one], [np.broadcast_to(ALL, (SIDE, SIDE * SIDE))], lambda: one.tensor.sum(0))
    p.variables.pop()


ALL = np.arange(SIDE * SIDE)
SLICES: list[Any] = [0, (0, 1, ...), slice(1, None), (slice(None), slice(0, None, 2)), (2, 2, ...), slice(None)]
masks = st.lists(st.booleans(), min_size=9, max_size=9).map(lambda flags: np.array(flags).reshape(SHAPE))
some_rows = st.lists(st.integers(0, SIDE - 1), min_size=1, max_size=SIDE)
distinct_rows = st.lists(st.integers(0, SIDE - 1), min_size=1, max_size=SIDE, unique=True)
tables = st.lists(st.integers(0, SIDE - 1), min_size=9, max_size=9).map(lambda rows: np.array(rows).reshape(SHAPE))
STEPS = [
    poison, poison, copy_part, view, pointwise, broadcast, in_place, clone, where, masked_fill, index_put, accumulate,
    moves, joins, picks, reduces,
]  # fmt: skip


def check(operation: Operation, expected: Expected) -> None:
    found = [(o.nan_from, o.inf_from) for o in operation.inputs if o.state.dtype.startswith(("float", "complex"))]
    assert found == expected.writers, (operation.name, operation.overload)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_random_programs(data: st.DataObject) -> None:
    program = Program()
    with program.tracer.tracing():
        program.fresh(1.0)
        program.fresh(2.0)
        for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=14)):
            step(program, data.draw)
    operations = program.tracer.tape(0).operations
    for index, expected in program.expected.items():
        check(operations[index], expected)


# What random programs do not reach


def last(call: Callable[[], Any]) -> Operation:
    """Trace a function; its last operation."""
    tracer = Tracer(nn.Linear(1, 1), [])
    with tracer.tracing():
        call()
    return tracer.tape(0).operations[-1]


def spoiled(dtype: torch.dtype = torch.complex64) -> Tensor:
    """Four rows of two, NaN in [0, 0] by operation 1, in [3, 1] by operation 2."""
    tensor = torch.zeros(4, 2, dtype=dtype)
    tensor[0, 0].fill_(NAN)
    tensor[3, 1].fill_(NAN)
    return tensor


MASK = torch.tensor([[True, False]] * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize(
    ("call", "writers"),
    [
        (lambda x: torch.where(MASK, x, torch.zeros(())), (1,)),
        (lambda x: torch.where(MASK, 0.0, x), (2,)),
        (lambda x: x.masked_fill(MASK, 0), (2,)),
        (lambda x: x.flip(-1), (1, 2)),
        (lambda x: torch.index_select(x, -1, torch.tensor([1])), (2,)),
        (lambda x: torch.index_select(x, 0, torch.tensor([0])), (1,)),
        (lambda x: torch.cat([x[:1], x[1:2]], -1), (1,)),
        (lambda x: x * torch.tensor([2.0]), (1, 2)),
        (lambda x: x[:2] + torch.ones(2), (1,)),
        (lambda x: x[2:] / torch.ones(2, 2), (2,)),
        (lambda x: x.sum(0)[0] * 1, (3,)),
    ],
)
def test_complex_numbers(call: Any, writers: tuple[int, ...], dtype: torch.dtype) -> None:
    operation = last(lambda: call(spoiled(dtype)))
    assert next(o.nan_from for o in operation.inputs if not o.state.finite) == writers


def test_one_part_of_a_complex_number() -> None:
    def call() -> Any:
        tensor = torch.zeros(2, 2, dtype=torch.complex64)
        tensor.imag[0, 1] = INF
        return tensor.flip(1)

    operation = last(call)
    assert operation.inputs[0].inf_from == (1,)


def test_a_view_through_another_dtype() -> None:
    """Elements of another size: which of them was written is not known, that the tensor was is."""

    def call() -> Any:
        tensor = torch.zeros(4)
        tensor[:2].fill_(NAN)
        return tensor.view(torch.int32).clone()

    assert last(call).inputs[0].producer == 1


@pytest.mark.parametrize("reduce", ["sum", "amax"])
def test_a_scatter_that_reduces_names_all(reduce: str) -> None:
    """An element of the result has more than one parent."""

    def call() -> Any:
        into, source = torch.zeros(3), torch.zeros(3)
        into[0].fill_(NAN)
        source[1].fill_(NAN)
        return into.scatter_reduce(0, torch.tensor([0, 0, 1]), source, reduce)

    operation = last(call)
    assert [o.nan_from for o in operation.inputs if not o.state.finite] == [(2,), (3,)]


@pytest.mark.filterwarnings("ignore:The reduce argument")
def test_a_scatter_that_multiplies() -> None:
    def call() -> Any:
        into, source = torch.ones(3), torch.ones(3)
        into[0].fill_(NAN)
        source[1].fill_(NAN)
        return into.scatter(0, torch.tensor([0, 0, 1]), source, reduce="multiply")

    operation = last(call)
    assert [o.nan_from for o in operation.inputs if not o.state.finite] == [(2,), (3,)]


def test_sparse_values_are_followed() -> None:
    def call() -> Any:
        values = torch.ones(2)
        values[1].fill_(NAN)
        return torch.sparse_coo_tensor(torch.tensor([[0, 1]]), values, (3,), check_invariants=False).to_dense()

    operation = last(call)
    assert not operation.state.finite
    assert any(not o.state.finite and o.nan_from for o in operation.inputs)


def test_a_tensor_from_outside_is_named() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight[0, 1] = NAN
    tracer = Tracer(model, [])
    with tracer.tracing():
        model(torch.ones(1, 2))
    reader = next(op for op in tracer.tape(0).operations if any(not o.state.finite for o in op.inputs))
    operand = next(o for o in reader.inputs if not o.state.finite)
    assert (operand.source, operand.nan_from) == ("parameter:weight", (-1,))
