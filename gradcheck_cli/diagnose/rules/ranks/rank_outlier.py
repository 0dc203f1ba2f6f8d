"""# GC701 rank-outlier

## What it detects

A rank whose own gradient, before it is synchronised, is out of line with that of the other ranks: its norm is far from
theirs in single steps or always, or it holds non-finite elements, or is zero, where theirs do not.

## Why it matters

The ranks' gradients are averaged: a rank whose norm is ten times that of seven others has more say than all of them,
and one NaN makes the weights NaN on all ranks. The average and its norm do not tell which rank it was. Most often its
shard of the data is bad: a corrupt file, other labels, other preprocessing on that host, batches of padding only.

## How to fix

1. Look at that rank's batches at the steps named: outliers, broken labels, empty or extremely long sequences.
2. Where it is always the same rank: look at its shard, and at what differs on its host, such as files, versions of the
   preprocessing, or the device itself. Let ranks exchange shards: if another rank is named then, it is the data.
3. Shuffle the data before they are dealt out, and give every rank batches of the same size.

## How it decides

Norms of single ranks are compared by their logs, with the median of the other ranks at the same step, so that what
befalls all ranks at once does not count. Steps that a GradScaler skipped do not either.

Always away: by the median over at least 10 steps, a rank is 3 times the others or a third of them, and that is 6
standard errors of that median. Fewer than half of the ranks can be named so.

Away in single steps: after its usual distance is taken off, the rank is 6 robust sigmas (1.4826 times the median
absolute deviation over all ranks and steps) away, by a factor of 3 at least, in a step in which no other rank is
farther. This needs 20 steps. Where tails are heavy some norms are always beyond 6 sigmas, so besides one of two must be
true. Either it is gross: 10 sigmas and 10 times. Or one rank has 5 or more of these steps, and so many of them as by
chance, each rank as likely, comes in less than 1 of 1000 runs. In simulated runs of ranks that are alike (2 to 8 of
them, 20 to 1000 steps) none of 400 had a finding where norms are log-normal, with a sigma of 0.1, 0.3 or 0.6; where the
logs follow Student's t with 5 degrees of freedom, single batches are grossly away at times, and are named: in 0.3 % of
runs of 2 ranks and 50 steps, in 12 % of those of 4 ranks and 1000 steps, at a scale of 0.3. One batch of 100 times the
others' norm in 50 steps is seen in all of 100 runs with a sigma of 0.1, and with 0.3 in 70 of 2 ranks, 97 of 4 and all
of 8.

Of two ranks nobody knows which one is right; the one with the larger norm is named.

Not finite: a rank's gradient holds elements that are not finite, in a step in which those of most ranks do not. Zero:
a rank's norm is 0 in most steps, in which those of most ranks are not.

One finding a rank, with the first such step. Not evaluated with one rank or fewer than 10 steps, or where the gradients
before synchronisation were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.ranks.deviations import (
    FACTOR,
    SIGMAS,
    STEPS_FOR_ALWAYS,
    STEPS_FOR_SINGLE,
    Deviation,
    find_deviations,
    most_wrong,
)
from gradcheck_cli.diagnose.rules.ranks.places import ONE_RANK, describe_batch, locate_batch, name_rank
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import Bools, Finding, Floats, Ints, Recording, Severity

MOST_STEPS = 20
LARGEST = 700.0
"""Beyond it, exp is infinite."""


class Seen(NamedTuple):
    """The steps that are judged, and of these (steps, ranks) norms and numbers of non-finite elements."""

    ranks: Ranks
    steps: Ints
    norm: Floats
    nonfinite: Floats


@rule("GC701", "rank-outlier", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    ranks = recording.ranks
    if ranks is None:
        return
    if ranks.size < 2:
        yield check.skip(ONE_RANK)
        return
    if np.isnan(ranks.grad_norm).all() and np.isnan(ranks.nonfinite).all():
        yield check.skip("the gradient of each rank before it is synchronised was not measured")
        return
    steps = np.flatnonzero(~recording.series.skipped[: len(ranks.grad_norm)])
    seen = Seen(ranks, steps, ranks.grad_norm[steps], ranks.nonfinite[steps])
    usable = np.flatnonzero((np.isfinite(seen.norm) & (seen.norm > 0)).all(axis=1))
    yield from skip_norms(len(usable))
    yield from judge(seen, usable)


def skip_norms(usable: int) -> Iterator[Outcome]:
    """What so few steps do not tell."""
    steps = f"{count(usable, 'step')} with a gradient norm on every rank that is finite and not 0"
    if usable < STEPS_FOR_ALWAYS:
        yield check.skip(f"{steps}: to compare the norms of ranks {STEPS_FOR_ALWAYS} are needed")
    elif usable < STEPS_FOR_SINGLE:
        yield check.skip(f"{steps}: a rank that is away in single steps is seen from {STEPS_FOR_SINGLE} on")


def judge(seen: Seen, usable: Ints) -> Iterator[Finding]:
    """One finding for each rank: not finite comes before zero, and zero before far from the others."""
    deviations = {one.rank: one for one in find_deviations(np.log(seen.norm[usable]))}
    broken, zero = in_few(seen.nonfinite > 0), in_few(seen.norm == 0)
    for rank in range(seen.ranks.size):
        if broken[:, rank].any():
            yield report_nonfinite(seen, rank, np.flatnonzero(broken[:, rank]))
        elif 2 * zero[:, rank].sum() > len(seen.steps):
            yield report_zero(seen, rank, np.flatnonzero(zero[:, rank]))
        elif deviation := deviations.get(rank):
            yield report_norm(seen, usable, deviation)


def in_few(wrong: Bools) -> Bools:
    """(steps, ranks): what is wrong, in the steps in which it is not so on most ranks."""
    few: Bools = wrong & (wrong.sum(axis=1, keepdims=True) <= most_wrong(wrong.shape[1]))
    return few


def report_nonfinite(seen: Seen, rank: int, rows: Ints) -> Finding:
    number = int(seen.nonfinite[rows[0], rank])
    return report(
        seen,
        rank,
        rows,
        f"the gradient of {name_rank(seen.ranks, rank)}, before it is synchronised, holds"
        f" {count(number, 'non-finite element')} at {when(seen, rank, rows)}, and those of most ranks none",
        "look at what this rank's batch holds there; gradcheck nan-trace names the operation that made the first one",
        {"what": "not finite", "nonfinite": number},
    )


def report_zero(seen: Seen, rank: int, rows: Ints) -> Finding:
    return report(
        seen,
        rank,
        rows,
        f"the gradient of {name_rank(seen.ranks, rank)}, before it is synchronised, is zero in {len(rows)} of"
        f" {count(len(seen.steps), 'step')}, while those of most ranks are not, first at"
        f" {describe_batch(seen.ranks, int(seen.steps[rows[0]]), rank)}",
        "look for batches of padding or ignored labels only in this rank's shard, and for a loss that is cut off there",
        {"what": "zero", "grad_norm": 0.0},
    )


def report_norm(seen: Seen, usable: Ints, deviation: Deviation) -> Finding:
    rank, rows = deviation.rank, usable[deviation.steps]
    norms = np.log(seen.norm[usable])
    others = np.median(np.delete(norms, rank, axis=1), axis=1)
    factors = np.exp(np.clip(norms[:, rank] - others, -LARGEST, LARGEST))
    factor = float(np.median(factors) if deviation.always else factors[deviation.steps[0]])
    norm, other = float(seen.norm[rows[0], rank]), math.exp(others[deviation.steps[0]])
    return report(
        seen,
        rank,
        rows,
        describe_norm(seen, rank, rows, norm, factor, deviation.always),
        "compare this rank's shard and its host with those of the others: data, labels, preprocessing, batch size"
        if deviation.always
        else "look at this rank's batches at these steps: outliers, broken labels, an empty or very long sequence",
        {
            "what": "always" if deviation.always else "single steps",
            "grad_norm": norm,
            "median_of_others": other,
            "factor": factor,
            "sigmas": SIGMAS,
            "least_factor": FACTOR,
        },
    )


def describe_norm(seen: Seen, rank: int, rows: Ints, norm: float, factor: float, always: bool) -> str:
    """The message on a norm that is far from the others."""
    name = name_rank(seen.ranks, rank)
    size = f"{factor:.3g} times" if factor > 1 else f"1/{1 / factor:.3g} of"
    two = seen.ranks.size == 2
    others = "that of the other rank" if two else "the median of the other ranks"
    unsure = "; of two ranks it is not known which one is right" if two else ""
    if always:
        return (
            f"the gradient norm of {name}, before it is synchronised, is {size} {others} by its median over"
            f" the steps, from {describe_batch(seen.ranks, int(seen.steps[rows[0]]), rank)} on{unsure}"
        )
    return (
        f"the gradient norm of {name}, before it is synchronised, is {norm:.4g} at {when(seen, rank, rows)},"
        f" {size} {others}{unsure}"
    )


def when(seen: Seen, rank: int, rows: Ints) -> str:
    """The first step, and how many there are."""
    others = f", the first of {len(rows)} such steps" if len(rows) > 1 else ""
    return describe_batch(seen.ranks, int(seen.steps[rows[0]]), rank) + others


def report(seen: Seen, rank: int, rows: Ints, message: str, hint: str, evidence: dict[str, Any]) -> Finding:
    steps = [int(seen.steps[row]) for row in rows]
    where = locate_batch(seen.ranks, steps[0], rank)
    evidence = {**where, **evidence, "number_of_steps": len(steps), "steps": steps[:MOST_STEPS]}
    return check.finding(message, hint, step=steps[0], evidence=evidence)
