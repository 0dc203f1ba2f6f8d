from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.diagnose.rules.ranks import straggler
from gradcheck_cli.records import Floats, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.rules.ranks.runs import made

RULE = straggler.check


def times(*ms: float, steps: int = 40) -> Floats:
    """(steps, ranks): each rank's, uneven by a few per cent, the first ten times as long."""
    own = 1e-3 * np.array(ms) * (1 + 0.05 * np.sin(np.arange(steps)))[:, None]
    own[:1] *= 10
    return own


def test_a_rank_that_takes_twice_as_long_is_named() -> None:
    (found,) = findings(RULE, made(own_seconds=times(4, 4, 4, 8)))
    assert (found.severity, found.step) == (Severity.INFO, None)
    assert (found.evidence["rank"], found.evidence["host"]) == (3, "node-1")
    assert found.evidence["own_seconds"] == pytest.approx(0.008, rel=0.05)
    assert found.evidence["share_of_step"] == pytest.approx(0.4, rel=0.05)
    assert "rank 3 (node-1) takes 8" in found.message
    assert "2 times" in found.message


def test_all_ranks_of_a_slow_host_are_named() -> None:
    found = findings(RULE, made(8, own_seconds=times(4, 4, 4, 4, 4, 4, 9, 9)))
    assert [one.evidence["rank"] for one in found] == [6, 7]


def test_half_as_long_again_is_not_enough() -> None:
    assert silent(RULE, made(own_seconds=times(4, 4, 4, 5.9)))
    assert findings(RULE, made(own_seconds=times(4, 4, 4, 6.1)))


def test_what_is_small_beside_the_step_is_silent() -> None:
    assert silent(RULE, made(own_seconds=times(0.4, 0.4, 0.4, 1.3)))
    assert findings(RULE, made(own_seconds=times(0.4, 0.4, 0.4, 1.5)))


def test_a_few_slow_steps_make_no_straggler() -> None:
    own = times(4, 4, 4, 4)
    own[::3, 2] *= 20
    assert silent(RULE, made(own_seconds=own))


@given(
    order=st.permutations(range(4)),
    scale=st.floats(1e-6, 1e6),
    times_of_one=st.one_of(st.floats(0.3, 1.4), st.floats(1.6, 10)),
)
def test_neither_the_order_nor_the_unit_matters(order: list[int], scale: float, times_of_one: float) -> None:
    own = scale * times(4, 4, 4, 4 * times_of_one)[:, order]
    found = findings(RULE, made(own_seconds=own, seconds=np.full((40, 4), 0.01 * scale)))
    assert [one.evidence["rank"] for one in found] == ([order.index(3)] if times_of_one > 1.5 else [])


def test_fewer_than_ten_steps_are_not_evaluated() -> None:
    (reason,) = reasons(RULE, made(steps=9, own_seconds=times(4, 4, 4, 40, steps=9)))
    assert "10 are needed" in reason
    (reason,) = reasons(RULE, made(own_seconds=np.full((40, 4), np.nan)))
    assert "0 steps" in reason
