from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.rules.ranks import rank_outlier
from gradcheck_cli.records import Floats, Severity
from tests.diagnose.outcomes import findings, reasons, silent
from tests.diagnose.rules.ranks.runs import healthy_norms, made, make_ranks, run_of

RULE = rank_outlier.check


def named(norms: Floats) -> dict[int, list[int]]:
    """The ranks found, each with its first steps."""
    found = findings(RULE, made(norms.shape[1], len(norms), grad_norm=norms))
    return {finding.evidence["rank"]: finding.evidence["steps"] for finding in found}


def test_a_bad_batch_of_one_rank_is_named_with_host_and_batch() -> None:
    norms = healthy_norms(40, 4)
    norms[23, 2] *= 100
    (found,) = findings(RULE, made(grad_norm=norms))
    assert (found.severity, found.step, found.layer) == (Severity.WARNING, 23, None)
    assert {name: found.evidence[name] for name in ("rank", "host", "epoch", "batch")} == {
        "rank": 2,
        "host": "node-1",
        "epoch": 5,
        "batch": 14,
    }
    assert found.evidence["number_of_steps"] == 1
    assert found.evidence["factor"] == pytest.approx(100, rel=0.6)
    assert "rank 2 (node-1)" in found.message
    assert "step 23 (epoch 5, batch 14)" in found.message


def test_several_bad_batches_are_one_finding_at_the_first() -> None:
    norms = healthy_norms(60, 4)
    norms[[11, 30, 52], 1] *= 50
    assert named(norms) == {1: [11, 30, 52]}


def test_a_bad_shard_that_shows_now_and_then_is_found() -> None:
    """Too many steps to be a gap above the rest, but all of one rank."""
    norms = healthy_norms(1000, 8)
    bad = np.arange(3, 1000, 25)
    norms[bad, 5] *= np.random.default_rng(0).uniform(8, 100, len(bad))
    assert list(named(norms)) == [5]
    (found,) = findings(RULE, made(8, 1000, grad_norm=norms))
    assert found.evidence["number_of_steps"] == pytest.approx(len(bad), abs=3)


@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize("steps", [10, 40])
def test_a_rank_that_is_always_ten_times_the_others_is_found(size: int, steps: int) -> None:
    norms = healthy_norms(steps, size)
    norms[:, 1] *= 10
    (found,) = findings(RULE, made(size, steps, grad_norm=norms))
    assert (found.evidence["rank"], found.evidence["what"], found.step) == (1, "always", 0)
    assert found.evidence["factor"] == pytest.approx(10, rel=0.3)


def test_smaller_than_the_others_is_an_outlier_too() -> None:
    norms = healthy_norms(40, 4)
    norms[:, 3] /= 20
    (found,) = findings(RULE, made(grad_norm=norms))
    assert found.evidence["rank"] == 3
    assert "1/" in found.message


def test_of_two_ranks_the_larger_is_named() -> None:
    norms = healthy_norms(40, 2)
    norms[:, 0] /= 20
    (found,) = findings(RULE, made(2, grad_norm=norms))
    assert found.evidence["rank"] == 1
    assert "not known which" in found.message


def test_two_bad_ranks_of_eight_are_two_findings() -> None:
    norms = healthy_norms(50, 8)
    norms[:, 2] *= 30
    norms[[20, 33], 6] *= 200
    assert set(named(norms)) == {2, 6}


def test_what_befalls_all_ranks_at_once_is_silent() -> None:
    norms = healthy_norms(60, 4)
    norms[30] *= 1000
    norms[:20] *= 50
    assert named(norms) == {}


def test_a_factor_of_three_is_the_least_for_a_rank_that_is_always_away() -> None:
    norms = np.ones((40, 4))
    norms[:, 1] = 2.9
    assert named(norms) == {}
    norms[:, 1] = 3.1
    assert set(named(norms)) == {1}


def test_a_factor_of_ten_is_the_least_for_a_single_batch() -> None:
    norms = np.ones((40, 4))
    norms[20, 1] = 9
    assert named(norms) == {}
    norms[20, 1] = 11
    assert named(norms) == {1: [20]}


def test_several_batches_of_one_rank_need_not_be_gross() -> None:
    norms = np.ones((40, 4))
    norms[[3, 9, 20, 21, 30, 35], 1] = 5
    assert named(norms) == {1: [3, 9, 20, 21, 30, 35]}


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.6])
def test_norms_that_scatter_are_silent(sigma: float, size: int) -> None:
    random = np.random.default_rng(int(10 * sigma))
    assert not any(named(np.exp(sigma * random.standard_normal((200, size)))) for _ in range(40))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    order=st.permutations(range(5)),
    scale=st.floats(1e-9, 1e9),
    bad=st.sampled_from([None, 0, 3]),
)
def test_neither_the_order_of_ranks_nor_the_scale_matters(
    seed: int, order: list[int], scale: float, bad: int | None
) -> None:
    norms = healthy_norms(30, 5, seed)
    if bad is not None:
        norms[[7, 8, 21], bad] *= 300
    expected = named(norms)
    assert set(expected) == (set() if bad is None else {bad})
    moved = named(scale * norms[:, order])
    assert {order[rank]: steps for rank, steps in moved.items()} == expected


def test_non_finite_elements_of_one_rank_are_counted() -> None:
    nonfinite, norms = np.zeros((40, 4)), healthy_norms(40, 4)
    nonfinite[12, 3], norms[12, 3] = 17, np.nan
    nonfinite[13:], norms[13:] = 99, np.nan  # the weights of all ranks
    (found,) = findings(RULE, made(nonfinite=nonfinite, grad_norm=norms))
    assert (found.step, found.evidence["rank"], found.evidence["nonfinite"]) == (12, 3, 17)
    assert found.evidence["number_of_steps"] == 1
    assert "17 non-finite elements" in found.message


def test_what_a_scaler_skipped_does_not_count() -> None:
    nonfinite, norms = np.zeros((40, 4)), healthy_norms(40, 4)
    nonfinite[2, 1], norms[2, 1] = 5, np.inf
    ranks = make_ranks(nonfinite=nonfinite, grad_norm=norms)
    assert silent(RULE, run_of(ranks, uses_scaler=True, skipped=[2]))
    assert findings(RULE, run_of(ranks))


def test_non_finite_on_most_ranks_is_not_one_rank_s() -> None:
    nonfinite, norms = np.zeros((40, 4)), healthy_norms(40, 4)
    nonfinite[20, :3], norms[20, :3] = 1, np.nan
    assert silent(RULE, made(nonfinite=nonfinite, grad_norm=norms))


@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_that_never_has_a_gradient_is_found(size: int) -> None:
    norms = healthy_norms(40, size)
    norms[:, 1] = 0
    (found,) = findings(RULE, made(size, grad_norm=norms))
    assert (found.evidence["rank"], found.evidence["what"]) == (1, "zero")


def test_a_batch_without_a_gradient_is_no_outlier() -> None:
    norms = healthy_norms(40, 4)
    norms[5, 1] = 0
    assert silent(RULE, made(grad_norm=norms))


def test_few_steps_are_not_evaluated() -> None:
    (reason,) = reasons(RULE, made(steps=9))
    assert "9 steps" in reason
    assert "10 are needed" in reason
    (reason,) = reasons(RULE, made(steps=19))
    assert "from 20 on" in reason
    assert reasons(RULE, made(steps=20)) == []


def test_unmeasured_gradients_are_not_evaluated() -> None:
    unknown = np.full((40, 4), np.nan)
    (reason,) = reasons(RULE, made(grad_norm=unknown, nonfinite=unknown))
    assert "not measured" in reason
