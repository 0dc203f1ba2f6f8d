"""# GC201 gradient-spike

## What it detects

Single steps whose global gradient norm stands far above those of the steps before.

## Why it matters

One such step can undo many others: it throws the weights off, and with Adam it spoils the moment estimates for
hundreds of steps more. Spikes often come before a loss that diverges, and often from single bad batches (Chowdhery et
al., "PaLM", 2022, section 5.1, who went back and skipped those batches).

## How to fix

1. Look at the batches named: outliers, broken labels, an empty or extremely long sequence.
2. Clip the gradient, `clip_grad_norm_(parameters, max_norm)`, with `max_norm` a little above the median norm.
3. Warm the learning rate up, or lower it; with Adam lower beta2 (0.95).
4. If one layer drives it: normalise its inputs, or limit its logits.

## How it decides

On the log of the norm before clipping, over steps that are finite, not zero and not skipped by a GradScaler: a spike
exceeds the median of the last 128 steps by 6 robust sigmas (1.4826 times the median absolute deviation) and is at least
twice that median. This needs 20 earlier steps. From the fourth step on, a norm 100 times the largest so far is a spike
too. A step with fewer examples than usual, as the last one of an epoch, may be higher by the square root of how many
times fewer, which is what noise alone makes of it. Spikes enter no later window; norms that jump and stay up are
therefore reported step by step. A trend within the window widens the spread, and only larger spikes are seen. Where
parameters join the training for good, as when a backbone is released, the norm is one of more parameters, and the
windows begin anew. One finding a run: the worst step, all others in the evidence, and the parameters with the largest
shares of that step's squared norm. Not evaluated with fewer than 4 such steps; with fewer than 21, by the second test
only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.joins import split_at_joins
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import Spike, find_spikes
from gradcheck_cli.diagnose.wording import count, describe_step, list_names, locate_step
from gradcheck_cli.records import Finding, Floats, Ints, Recording, Severity

WINDOW = 128
EARLIER_STEPS = 20
SIGMAS = 6.0
LEAST_RATIO = 2.0
JUMP_RATIO = 100.0
FEWEST_STEPS = 4
MOST_DRIVERS = 5


@rule("GC201", "gradient-spike", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    series = recording.series
    steps = np.flatnonzero(np.isfinite(series.grad_norm) & (series.grad_norm > 0) & ~series.skipped)
    if len(steps) < FEWEST_STEPS:
        yield check.skip(f"{count(len(steps), 'step')} with a finite gradient norm, {FEWEST_STEPS} are needed")
        return
    parts = split_at_joins(recording, steps)
    if (longest := max(map(len, parts))) <= EARLIER_STEPS:
        yield check.skip(
            f"{longest} steps are too few for a median and its spread ({EARLIER_STEPS + 1} are needed): only a norm"
            f" of {JUMP_RATIO:.0f} times the largest so far would have been seen"
        )
    logs = np.log(series.grad_norm[steps]) - small_batch_excess(series.examples[steps])
    starts = [int(np.searchsorted(steps, part[0])) for part in parts]
    spikes = [spike for start, part in zip(starts, parts, strict=True) for spike in spikes_in(logs, start, len(part))]
    if spikes:
        yield report(recording, steps, spikes)


def small_batch_excess(examples: Ints) -> Floats:
    """(n,): how far the log of the norm lies higher than usual if all of a gradient is noise, of a step with fewer
    examples than the median; 0 where these are not known. The noise of a mean of n falls with sqrt(n).
    """
    known = examples > 0
    usual = np.median(examples[known]) if known.any() else 1.0
    return np.where(known, np.maximum(0.5 * np.log(usual / np.maximum(examples, 1)), 0.0), 0.0)


def spikes_in(logs: Floats, start: int, length: int) -> list[Spike]:
    """Those at so many steps from one on, by the logs of all norms."""
    found = find_spikes(
        logs[start : start + length],
        window=WINDOW,
        minimum=EARLIER_STEPS,
        sigmas=SIGMAS,
        least=lambda median: median + math.log(LEAST_RATIO),
        jump=math.log(JUMP_RATIO),
        jump_from=FEWEST_STEPS - 1,
    )
    return [spike._replace(position=spike.position + start) for spike in found]


def report(recording: Recording, steps: Ints, spikes: list[Spike]) -> Finding:
    series, norms = recording.series, recording.series.grad_norm[steps]
    worst = max(spikes, key=lambda spike: math.log(norms[spike.position]) - spike.median)
    step, norm, median = int(steps[worst.position]), float(norms[worst.position]), math.exp(worst.median)
    drivers = find_drivers(recording, step)
    named = [f"{driver['parameter']} ({driver['share']:.0%})" for driver in drivers]
    driven = f"; driven by {list_names(named[:3])}" if named else ""
    others = f", one of {len(spikes)} such steps" if len(spikes) > 1 else ""
    return check.finding(
        f"the gradient norm spikes to {norm:.4g} at {describe_step(series, step)}, {norm / median:.3g} times the median"
        f" of the steps before it{others}{driven}",
        f"look at the batch for outliers; clip with clip_grad_norm_(parameters, {2 * median:.2g});"
        " warm up or lower the learning rate",
        step=step,
        evidence={
            **locate_step(series, step),
            "grad_norm": norm,
            "median": median,
            "ratio": norm / median,
            "threshold": math.exp(worst.threshold),
            "sigmas": SIGMAS,
            "least_ratio": LEAST_RATIO,
            "jump_ratio": JUMP_RATIO,
            "spikes": [int(steps[spike.position]) for spike in spikes],
            "drivers": drivers,
        },
    )


def find_drivers(recording: Recording, step: int) -> list[dict[str, str | float]]:
    """The parameters with the largest shares of the squared global norm at a step; none if it was thinned away."""
    rows = np.flatnonzero(recording.statistics.steps == step)
    if not len(rows) or not recording.parameters:
        return []
    norms = np.nan_to_num(recording.statistics.norm[rows[0]], nan=0.0, posinf=0.0)
    # Scaled first: the square of a norm of 1e200 overflows.
    squares = (norms / max(float(norms.max()), np.finfo(float).tiny)) ** 2
    shares = squares / max(float(squares.sum()), 1.0)
    return [
        {
            "parameter": recording.parameters[index].name,
            "module": recording.parameters[index].module,
            "share": float(shares[index]),
        }
        for index in np.argsort(-shares, kind="stable")[:MOST_DRIVERS]
        if shares[index] > 0
    ]
