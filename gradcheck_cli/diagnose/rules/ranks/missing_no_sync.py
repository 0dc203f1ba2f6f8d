"""# GC703 missing-no-sync

## What it detects

Gradients that are synchronised after every micro-batch of an accumulation, not only after the last one.

## Why it matters

The sum of the averages is the average of the sums: the result is the same, and all synchronisations but the last one
are wasted. With K micro-batches the network carries K times as much, and the ranks wait for one another K times.

## How to fix

1. DistributedDataParallel: `with model.no_sync():` around forward and backward of all micro-batches but the last, as on
   PyTorch's page "DistributedDataParallel". The forward pass must be inside: it decides there.
2. FSDP2: `model.set_requires_gradient_sync(last)` before each forward pass. Whole gradients then stay in memory between
   micro-batches, where shards would do; if that is too much, leave it as it is.
3. Accelerate: `with accelerator.accumulate(model):`. Lightning and the Trainer of transformers do it by themselves.

## How it decides

The run accumulates: by its own setting, or because most steps of a watched script add up the gradients of several
backwards by the same lines. In more than half of the steps gradients were synchronised more than once. The cost is the
measured time of one synchronisation times the superfluous ones. It is an upper bound, since it can overlap with the
backward pass. Information only where that is known to be less than 1 % of the step. Not evaluated with one rank, or
where the synchronisations were not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.ranks.places import ONE_RANK
from gradcheck_cli.diagnose.windows import loops_of, usual_count
from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import Finding, Ints, Recording, Severity

NEGLIGIBLE = 0.01
HINTS = {
    "fsdp2": "model.set_requires_gradient_sync(last) before the forward pass of each micro-batch, if the memory is"
    " enough for whole gradients",
    "": "with model.no_sync(): around forward and backward of all micro-batches but the last"
    " (FSDP2: model.set_requires_gradient_sync(last))",
}


@rule("GC703", "missing-no-sync", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    ranks = recording.ranks
    micro_batches = count_micro_batches(recording)
    if ranks is None or micro_batches < 2:
        return
    if ranks.size < 2:
        yield check.skip(ONE_RANK)
        return
    syncs = ranks.syncs.max(axis=1)
    known = syncs[syncs >= 0]
    if not len(known):
        yield check.skip("how often gradients were synchronised is not known")
    elif 2 * (known > 1).sum() > len(known):
        yield report(ranks, known, micro_batches)


def count_micro_batches(recording: Recording) -> int:
    """How many backwards a step adds up."""
    usual = [usual_count(loop.windows) for loop in loops_of(recording)]
    return max(recording.run.accumulate, *usual, 1)


def report(ranks: Ranks, syncs: Ints, micro_batches: int) -> Finding:
    superfluous = np.maximum(syncs - 1, 0)
    each = float(np.median(superfluous)) * ranks.sync_seconds
    timed = ranks.seconds[np.isfinite(ranks.seconds)]
    step = float(np.median(timed)) if len(timed) else 0.0
    share = each / step if step > 0 else float("nan")
    return check.finding(
        f"gradients are synchronised after every micro-batch: {int(superfluous.sum())} of {int(syncs.sum())}"
        f" synchronisations in {len(syncs)} steps were superfluous, {describe_cost(each, share)}",
        HINTS.get(ranks.strategy, HINTS[""]),
        severity=Severity.INFO if share < NEGLIGIBLE else Severity.WARNING,
        evidence={
            "micro_batches": micro_batches,
            "steps": len(syncs),
            "synchronisations": int(syncs.sum()),
            "superfluous": int(superfluous.sum()),
            "superfluous_per_step": float(np.median(superfluous)),
            "sync_seconds": known_or_none(ranks.sync_seconds),
            "superfluous_seconds_per_step": known_or_none(each),
            "share_of_step": known_or_none(share),
            "strategy": ranks.strategy,
            "ranks": ranks.size,
        },
    )


def describe_cost(seconds: float, share: float) -> str:
    """What is wasted in a step."""
    if not isfinite(seconds):
        return "and how long one takes was not measured"
    of_step = f", {share:.0%} of it" if isfinite(share) else ""
    return f"which took up to {1000 * seconds:.3g} ms a step{of_step}"


def known_or_none(value: float) -> float | None:
    """As evidence, which has no NaN."""
    return value if isfinite(value) else None
