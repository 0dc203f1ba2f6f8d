"""# GC608 residual-growth

## What it detects

A residual stream that grows exponentially with depth: every block multiplies it, because its branch is as large as
the stream itself.

## Why it matters

A residual block adds its branch to the stream. With He's initialisation and no normalisation a branch is as large as
what it reads, so each block doubles the variance, and twenty of them make a million. Outputs, loss and gradients
begin absurdly large; half precision overflows at 65504; the last blocks drown the first ones out. Normalised branches
have the same size everywhere, and the variance grows only linearly. Hanin and Rolnick, "How to Start Training: The
Effect of Initialization and Architecture", 2018, section 3.2; Zhang et al., "Fixup Initialization", 2019, section 2;
De and Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks", 2020,
section 3.

## How to fix

1. Normalise what each branch reads (`nn.LayerNorm`, `nn.BatchNorm2d`).
2. Without normalisation: initialise the last layer of every branch with zeros (Fixup), or divide it by
   sqrt(number of blocks); or a learned factor on each branch that begins at 0 (SkipInit: De and Smith, section 4).
3. No factor above 1 on the stream itself.

## How it decides

On the first step, the RMS of the output of each block of a stack, in order of execution. Growth that is linear in
depth at most doubles it from the middle block to the last one. Beyond linear is what more than quadruples it, and
grows from the first block to the last by more than the number of blocks: information; by more than ten times that:
warning. Healthy stacks (pre-LN transformers of 4 to 48 layers, ResNets with BatchNorm, ConvNeXt, Fixup) measured
up to 1.9 from the middle and 8.4 in all, residual stacks without normalisation 8.9 to 500, and 33 to 1e12.

Only where the blocks are residual: what a block adds has less RMS than what it returns (median over the blocks), which
a block that replaces its input does not manage. Not evaluated for weights that were trained before: in trained
transformers a few dimensions of the stream grow large, which does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.initialisation import starts_untrained
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.stacks import Stack, stacks
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.records import Finding, Floats, Recording, Severity

LATE = 4.0
"""Twice what growth that is linear in depth gives from the middle to the end."""
LINEAR = 1.0
WARNING = 10.0


@rule("GC608", "residual-growth", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if recording.signals is None or not len(recording.probes.steps):
        yield check.skip("blocks were not measured: the recording has no signals, or no step was probed")
        return
    if not starts_untrained(recording):
        yield check.skip("the run begins with trained weights, or its first step was not probed")
        return
    for stack in stacks(recording):
        if is_residual(stack) and growth(stack, len(stack.names) // 2) > LATE:
            total = growth(stack, 0) / len(stack.names)
            if total > LINEAR:
                yield finding(stack, Severity.WARNING if total > WARNING else Severity.INFO)


def growth(stack: Stack, start: int) -> float:
    """How many times the RMS of a block's output is that of the last one, on the first step; NaN if unknown."""
    first, last = float(stack.output_rms[0, start]), float(stack.output_rms[0, -1])
    return last / first if first > 0 and np.isfinite([first, last]).all() else float("nan")


def is_residual(stack: Stack) -> bool:
    """Whether the blocks add to their input, and not replace it."""
    shares = shares_of(stack)
    return len(shares) > 0 and median(shares) < 1


def shares_of(stack: Stack) -> Floats:
    """How much of what each block returns it added, on the first step, where known."""
    shares: Floats = stack.branch_share[0]
    known: Floats = shares[np.isfinite(shares)]
    return known


def finding(stack: Stack, severity: Severity) -> Finding:
    """The finding for one stack."""
    total, blocks = growth(stack, 0), len(stack.names)
    first, last = float(stack.output_rms[0, 0]), float(stack.output_rms[0, -1])
    share = median(shares_of(stack))
    return check.finding(
        f"the residual stream grows exponentially with depth: RMS {first:.1e} after {stack.names[0]},"
        f" {last:.1e} after {stack.names[-1]}, {total ** (1 / (blocks - 1)):.2f} times with each of {blocks} blocks;"
        f" what a block adds is {share:.0%} of what it returns",
        "normalise what each branch reads, or let the last layer of every branch begin with zeros (Fixup) or divided"
        " by sqrt(number of blocks); no factor above 1 on the stream itself",
        severity=severity,
        layer=stack.layer,
        step=0,
        evidence={
            **stack.evidence,
            "first_rms": first,
            "last_rms": last,
            "growth": total,
            "growth_from_the_middle": growth(stack, blocks // 2),
            "median_branch_share": share,
            "beyond_linear_at": LATE,
            "warning_at": WARNING * blocks,
        },
    )
