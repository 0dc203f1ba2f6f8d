"""What the ranks saw is joined in any order to the same, and compared as by hand."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.ranks import (
    PER_STEP,
    Desync,
    Parts,
    RankPart,
    Ranks,
    Tensors,
    UnusedOnSome,
    find_desyncs,
    find_unused,
    merge,
    side_by_side,
)

NAMES = ("a", "b", "c", "d")
TENSORS = Tensors(NAMES, ("a", "b", "c", "mean"), frozenset({"mean"}))
numbers = st.one_of(st.floats(0, 10), st.just(math.nan))


@st.composite
def some_part(draw: st.DrawFn, rank: int, steps: int, checked: tuple[int, ...]) -> RankPart:
    """A rank's part; few different checksums, so that ranks often agree."""

    def column(values: st.SearchStrategy[float], dtype: type = np.float64) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=steps, max_size=steps)), dtype=dtype)

    floats = {name: column(numbers) for name in ("loss", "grad_norm", "nonfinite", "seconds", "own_seconds")}
    whole = {name: column(st.integers(-1, 5), np.int64) for name in ("batch", "epoch", "syncs")}
    starts = sorted(draw(st.sets(st.integers(0, max(0, steps - 1)), max_size=3)))
    indices = st.lists(st.integers(0, len(NAMES) - 1), unique=True, max_size=3).map(sorted).map(tuple)
    sums = draw(st.lists(st.integers(1, 2), min_size=4 * len(checked), max_size=4 * len(checked)))
    return RankPart(
        rank=rank,
        host=f"node-{rank // 2}",
        **floats,
        **whole,
        sync_seconds=draw(numbers),
        unused=tuple((start, draw(indices)) for start in starts),
        checked=np.array(checked, dtype=np.int64),
        checksums=np.array(sums, dtype=np.int64).reshape(len(checked), 4),
    )


@st.composite
def all_parts(draw: st.DrawFn, shortest: int = 0) -> list[RankPart]:
    """Those of one to five ranks; some may have made more steps than others."""
    size, steps = draw(st.integers(1, 5)), draw(st.integers(shortest, 6))
    checked = tuple(sorted(draw(st.sets(st.integers(0, max(0, steps - 1)), max_size=3)))) if steps else ()
    more = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    return [draw(some_part(rank, steps + extra, checked)) for rank, extra in enumerate(more)]


def of(parts: list[RankPart]) -> Parts:
    return {part.rank: part for part in parts}


def joined(parts: Parts) -> Ranks:
    return side_by_side(parts, TENSORS, "ddp", "gloo", finds_unused=True)


def same(one: Ranks, other: Ranks) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Ranks)]
    return all(np.array_equal(a, b, equal_nan=True) if isinstance(a, (np.ndarray, float)) else a == b for a, b in pairs)


@given(parts=all_parts(), data=st.data())
def test_any_order_and_any_grouping_join_to_the_same(parts: list[RankPart], data: st.DataObject) -> None:
    groups: list[Parts] = [of([part]) for part in data.draw(st.permutations(parts))]
    while len(groups) > 1:
        first = data.draw(st.integers(0, len(groups) - 2))
        count = data.draw(st.integers(2, len(groups) - first))
        groups[first : first + count] = [merge(*groups[first : first + count])]
        groups = data.draw(st.permutations(groups))
    assert groups[0] == of(parts)
    assert all(groups[0][part.rank] is part for part in parts)
    assert same(joined(groups[0]), joined(of(parts)))


@given(parts=all_parts())
def test_nothing_is_the_neutral_element(parts: list[RankPart]) -> None:
    assert merge() == {}
    assert merge({}, of(parts), {}) == of(parts)


@given(parts=all_parts())
def test_merging_leaves_what_it_joins_as_it_was(parts: list[RankPart]) -> None:
    one, rest = of(parts[:1]), of(parts[1:])
    merge(one, rest)
    assert (list(one), list(rest)) == ([0], [part.rank for part in parts[1:]])


@given(parts=all_parts(), data=st.data())
def test_a_rank_that_comes_twice_is_refused(parts: list[RankPart], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(parts))
    with pytest.raises(ValueError, match=f"rank {again.rank} comes twice"):
        merge(of(parts), of([again]))


def test_a_rank_that_is_missing_is_refused() -> None:
    parts = [plain(rank) for rank in range(3)]
    with pytest.raises(ValueError, match=r"of 3 ranks only \[0, 2\]"):
        joined(of([parts[0], parts[2]]))
    with pytest.raises(ValueError, match=r"of 3 ranks only \[1, 2\]"):
        joined(of(parts[1:]))


@given(parts=all_parts())
def test_side_by_side_has_a_column_for_each_rank(parts: list[RankPart]) -> None:
    ranks = joined(of(parts))
    steps = min(len(part.loss) for part in parts)
    assert ranks.size == len(parts)
    assert ranks.hosts == tuple(part.host for part in parts)
    for name in PER_STEP:
        table = getattr(ranks, name)
        assert table.shape == (steps, len(parts))
        for part in parts:
            np.testing.assert_array_equal(table[:, part.rank], getattr(part, name)[:steps])
    known = sorted(part.sync_seconds for part in parts if not math.isnan(part.sync_seconds))
    assert math.isnan(ranks.sync_seconds) if not known else known[0] <= ranks.sync_seconds <= known[-1]


@given(parts=all_parts(shortest=1))
def test_unused_parameters_are_those_that_a_count_by_hand_finds(parts: list[RankPart]) -> None:
    steps = min(len(part.loss) for part in parts)
    expected = []
    for index, name in enumerate(NAMES):
        without = [[part.rank for part in parts if index in unused_at(part, step)] for step in range(steps)]
        mixed = [step for step in range(steps) if 0 < len(without[step]) < len(parts)]
        if mixed:
            expected.append(UnusedOnSome(name, mixed[0], len(mixed), tuple(without[mixed[0]])))
    assert list(find_unused(parts, NAMES, steps)) == expected
    assert joined(of(parts)).unused == tuple(expected)


def unused_at(part: RankPart, step: int) -> tuple[int, ...]:
    """The indices in the last entry at or before the step."""
    so_far = [indices for first, indices in part.unused if first <= step]
    return so_far[-1] if so_far else ()


@given(parts=all_parts(shortest=1))
def test_desyncs_are_those_that_a_comparison_by_hand_finds(parts: list[RankPart]) -> None:
    expected = []
    for index, name in enumerate(TENSORS.checked):
        for check, step in enumerate(parts[0].checked):
            sums = [int(part.checksums[check, index]) for part in parts]
            differing = tuple(rank for rank, one in enumerate(sums) if one != sums[0])
            if differing:
                expected.append(Desync(name, name == "mean", int(step), differing))
                break
    assert list(find_desyncs(parts, TENSORS)) == expected
    assert joined(of(parts)).desyncs == tuple(expected)


def test_a_check_after_the_last_step_that_all_have_does_not_count() -> None:
    """A rank that stopped a step early takes the steps after it away from all."""
    parts = [plain(0, steps=3, checked=(0, 2), checksum=5), plain(1, steps=2, checked=(0, 2), checksum=5)]
    parts[1].checksums[1] = 6
    ranks = joined(of(parts))
    assert len(ranks.loss) == 2
    assert ranks.checked == (0,)
    assert ranks.desyncs == ()


def plain(rank: int, steps: int = 2, checked: tuple[int, ...] = (0,), checksum: int = 1) -> RankPart:
    floats = np.ones(steps)
    whole = np.ones(steps, dtype=np.int64)
    return RankPart(
        rank=rank,
        host="node",
        loss=floats,
        grad_norm=floats,
        nonfinite=floats,
        seconds=floats,
        own_seconds=floats,
        batch=whole,
        epoch=whole,
        syncs=whole,
        sync_seconds=math.nan,
        unused=(),
        checked=np.array(checked, dtype=np.int64),
        checksums=np.full((len(checked), 4), checksum, dtype=np.int64),
    )
