"""# GC704 straggler

## What it detects

A rank that takes much longer than the others for what it does alone: loading its data and its forward pass.

## Why it matters

Every synchronisation waits for the slowest rank. With 64 ranks, one that needs half as long again makes 63 others idle
for that time, in each step, and their own profiles show it as slow communication.

## How to fix

1. Time the data loader of that rank: too few workers, a slow disk, a cold cache, or another job on its host.
2. Compare its batches: longer sequences or larger images. Sort by length before dealing out, or deal out by tokens.
3. Compare its device with the others: clock, temperature, other processes, `torch.get_num_threads()` on a CPU.

## How it decides

By medians over at least 10 steps of the time in which a rank waits for nobody: one rank's is more than 1.5 times the
median of the other ranks', and more by over 10 % of the median step. One finding a rank. The first steps, in which
kernels are compiled and workers started, do not move a median. Not evaluated with one rank, fewer steps, or where that
time was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.ranks.places import ONE_RANK, name_rank
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import Finding, Floats, Recording, Severity

FEWEST_STEPS = 10
FACTOR = 1.5
LEAST_SHARE = 0.1


@rule("GC704", "straggler", Severity.INFO)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    ranks = recording.ranks
    if ranks is None:
        return
    if ranks.size < 2:
        yield check.skip(ONE_RANK)
        return
    timed = (np.isfinite(ranks.own_seconds) & np.isfinite(ranks.seconds) & (ranks.seconds > 0)).all(axis=1)
    if timed.sum() < FEWEST_STEPS:
        yield check.skip(
            f"{count(int(timed.sum()), 'step')} in which the time of every rank was measured, {FEWEST_STEPS} are needed"
        )
        return
    own, step = np.median(ranks.own_seconds[timed], axis=0), float(np.median(ranks.seconds[timed]))
    for rank in range(ranks.size):
        others = float(np.median(np.delete(own, rank)))
        if own[rank] > FACTOR * others and own[rank] - others > LEAST_SHARE * step:
            yield report(ranks, rank, own, others, step)


def report(ranks: Ranks, rank: int, own: Floats, others: float, step: float) -> Finding:
    seconds = float(own[rank])
    times = f"{seconds / others:.3g} times" if others > 0 else "against"
    return check.finding(
        f"{name_rank(ranks, rank)} takes {1000 * seconds:.3g} ms a step for its data and forward pass, {times} the"
        f" {1000 * others:.3g} ms of {'the other rank' if ranks.size == 2 else 'the other ranks'}: they wait for"
        f" {(seconds - others) / step:.0%} of a step",
        "on that rank look at the data loader (workers, disk, cache), at the size of its batches, and at what else runs"
        " on its host or device",
        evidence={
            "rank": rank,
            "host": ranks.hosts[rank],
            "own_seconds": seconds,
            "own_seconds_of_others": others,
            "least_factor": FACTOR,
            "step_seconds": step,
            "share_of_step": (seconds - others) / step,
            "ranks": ranks.size,
        },
    )
