"""# GC612 dominated-batch

## What it detects

A step whose gradient stands far above those before it because of a few samples of its batch.

## Why it matters

The step goes where these samples want it, whatever the rest of the batch says: outliers, broken labels, a sequence of
one token or of thousands. One such step can undo many others, and comes back with every epoch.

## How to fix

1. Look at the samples named. Repair or drop them, or limit what one sample can cost: normalise its inputs, clip its
   loss, take a robust one (Huber instead of squares).
2. Skip the batches around the spike: Chowdhery et al., "PaLM", 2022, section 5.1, went back to a checkpoint about 100
   steps before each spike and left out some 200 to 500 batches around it. The same batches did no harm elsewhere.
3. Clip the gradient, `clip_grad_norm_(parameters, max_norm)`, with `max_norm` a little above the median norm.

## How it decides

The batches of one step are kept while the run is on: the one whose gradient norm is the largest multiple of the median
of the (up to 128) norms before it, if it is at least 5 times that; there must be 5 norms before it. After the run the
gradient of each sample is taken by itself. A sample's share is its part of the step's gradient along itself,
g_i . G / sum_j g_j . G, so that shares sum to 1. A finding are those of the top 5 % (rounded up) with at least 5 times
the share of an even split, if together they make more than half.

On a CPU the weights of the step are kept as well when its loss stands out (by 4 robust sigmas of the losses before it,
these being at least 5 % of their median). Without them, as on an accelerator, the samples are judged with the weights
after the run; the message then says so, and the finding is an info: samples that the model has learnt since are not
found, and those that it has not learnt stand out more than they did.

It is a warning where the norm is 10 times the median and above all norms before it. Else it is an info, too: late in a
healthy run, when most samples are learnt, the few that are not make the larger gradients (up to 7 times the median in
1500 steps on digits). Not evaluated with fewer than 16 samples or more than 512, where the model normalises over the
batch, where the samples' gradients do not sum to that of the step (within a factor of 2 along it; those of losses
between samples do not, dropout alone makes less of a difference), and where it would take more than 20 seconds. Rows
are those of the first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import median
from gradcheck_cli.diagnose.wording import count, describe_step, list_names, locate_step
from gradcheck_cli.diagnose.worst_step import EARLIER_STEPS, LEAST_RATIO, WorstStep, find_worst_step
from gradcheck_cli.examination import SampleGradients
from gradcheck_cli.records import Finding, Ints, Recording, Severity

FEW = 0.05
MOST_OF_IT = 0.5
LEAST_TIMES = 5.0
FEWEST_SAMPLES = 16
WARNING_RATIO = 10.0
AGREEMENT = 2.0
AROUND = 2


@rule("GC612", "dominated-batch", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if recording.steps <= EARLIER_STEPS:
        yield check.skip(f"{count(recording.steps, 'step')}, {EARLIER_STEPS + 1} are needed to tell which stands out")
        return
    worst = find_worst_step(recording.series.grad_norm.tolist())
    if worst is None:
        return
    samples = recording.examination.samples if recording.examination else None
    if reason := why_not(worst, samples):
        yield check.skip(f"{describe_step(recording.series, worst.step)} stands out, but {reason}")
    elif samples and len(few := find_few(samples)):
        yield report(recording, worst, samples, few)


def why_not(worst: WorstStep, samples: SampleGradients | None) -> str:
    """Why the samples say nothing, if so."""
    if samples is None or samples.step != worst.step:
        return "its batches were not kept"
    if samples.reason:
        return samples.reason
    if len(samples.rows) < FEWEST_SAMPLES:
        return f"has {count(len(samples.rows), 'sample')} only, {FEWEST_SAMPLES} are needed"
    if not 1 / AGREEMENT <= samples.agreement <= AGREEMENT:
        return "the gradients of its samples do not sum to its own: what one costs depends on the others"
    return ""


def find_few(samples: SampleGradients) -> Ints:
    """The samples that have far more than their share, largest first; none unless they are few and make most of it."""
    shares = np.array(samples.shares)
    most = math.ceil(FEW * len(shares))
    few: Ints = np.argsort(-shares, kind="stable")[:most]
    few = few[shares[few] >= LEAST_TIMES / len(shares)]
    return few if shares[few].sum() > MOST_OF_IT else few[:0]


def report(recording: Recording, worst: WorstStep, samples: SampleGradients, few: Ints) -> Finding:
    series, step = recording.series, worst.step
    when = "" if samples.at_step else " (with the weights as they were after the run)"
    share, where = sum(samples.shares[index] for index in few), locate_step(series, step)
    first, last = max(0, where["batch"] - AROUND), max(samples.batches) + AROUND
    who = f"{len(few)} of {len(samples.rows)} samples make{'s' if len(few) == 1 else ''} {min(share, 1.0):.0%}"
    return check.finding(
        f"{who} of the gradient of {describe_step(series, step)}, whose norm is {worst.ratio:.3g} times the median of"
        f" the steps before it: {list_names(places(samples, few))}{when}",
        f"look at {'these samples' if len(few) > 1 else 'this sample'} for outliers and broken labels; if spikes come"
        f" back, restart from a checkpoint before step {step} and skip the batches around it, {first} to {last} of"
        f" epoch {where['epoch']}, or clip the gradient",
        step=step,
        severity=Severity.WARNING if samples.at_step and is_bad(worst) else Severity.INFO,
        evidence={
            **where,
            "grad_norm": worst.norm,
            "median": worst.median,
            "ratio": worst.ratio,
            "largest_before": worst.largest,
            "samples": len(samples.rows),
            "batches": [samples.batches[index] for index in few],
            "rows": [samples.rows[index] for index in few],
            "shares": [samples.shares[index] for index in few],
            "norms": [samples.norms[index] for index in few],
            "median_norm": median(samples.norms),
            "share": share,
            "weights_of_step": samples.at_step,
            "least_ratio": LEAST_RATIO,
            "warning_ratio": WARNING_RATIO,
            "few": FEW,
            "most": MOST_OF_IT,
            "least_times": LEAST_TIMES,
        },
    )


def is_bad(worst: WorstStep) -> bool:
    """Whether the gradient is far too large, and not only larger than what is left late in a run."""
    return worst.ratio >= WARNING_RATIO and worst.norm > worst.largest


def places(samples: SampleGradients, few: Ints) -> list[str]:
    """`row 14`, or `row 14 of batch 29` where the step had several batches."""
    several = len(set(samples.batches)) > 1
    return [f"row {samples.rows[i]}" + (f" of batch {samples.batches[i]}" if several else "") for i in few]
