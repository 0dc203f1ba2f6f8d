"""# GC202 loss-spike

## What it detects

Single steps whose loss stands far above those of the steps before.

## Why it matters

A spike is either a batch unlike the others (outliers, broken labels, another distribution) or the sign of an update
that was too large. Some runs recover within a few hundred steps, some never (Chowdhery et al., "PaLM", 2022, section
5.1).

## How to fix

1. Look at the batch named. If the loss is high for the same batch in each epoch, it is the data.
2. If the gradient spiked one step earlier (GC201), the update did it: clip, warm up, lower the learning rate.
3. With Adam, lower beta2 (0.95), so that the variance estimate follows sooner.
4. Shuffle: data sorted by class or source gives steps from batch to batch that look like spikes.

## How it decides

On the log of the loss (on the loss itself if any is not positive), over finite steps: a spike exceeds the median of the
last 128 steps by 6 robust sigmas (1.4826 times the median absolute deviation), after 20 earlier steps; or, from the
fourth step on and for positive losses only, 100 times the largest loss so far. It also exceeds the median by a tenth
of the size of the initial loss (median of |loss| over the first three steps): 0.003 among losses of 0.0001 is no
event. While the loss falls fast, the fall itself widens the spread, and only larger spikes are seen. Spikes enter no
later window. One finding a run. Not evaluated with fewer than 4 finite losses; with fewer than
21, by the second test only, or not at all if any loss is not positive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.statistics import Spike, find_spikes, median
from gradcheck_cli.diagnose.wording import count, describe_step, locate_step
from gradcheck_cli.records import Finding, Floats, Ints, Recording, Severity

WINDOW = 128
EARLIER_STEPS = 20
SIGMAS = 6.0
LEAST_SHARE = 0.1
JUMP_RATIO = 100.0
FEWEST_STEPS = 4


@rule("GC202", "loss-spike", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    steps = np.flatnonzero(np.isfinite(recording.series.loss))
    losses = recording.series.loss[steps]
    positive = bool((losses > 0).all())
    if reason := explain_shortness(len(steps), positive):
        yield check.skip(reason)
    if len(steps) < FEWEST_STEPS:
        return
    least = LEAST_SHARE * median(np.abs(losses[:3]))
    spikes = find_on_logs(losses, least) if positive else find_on_values(losses, least)
    if spikes:
        yield report(recording, steps, losses, spikes, least)


def explain_shortness(steps: int, positive: bool) -> str:
    """What can't be judged with so few steps; nothing if all can."""
    if steps < FEWEST_STEPS:
        return f"{count(steps, 'step')} with a finite loss, {FEWEST_STEPS} are needed"
    if steps > EARLIER_STEPS:
        return ""
    reason = f"{steps} steps are too few for a median and its spread ({EARLIER_STEPS + 1} are needed)"
    return (
        f"{reason}: only a loss of {JUMP_RATIO:.0f} times the largest so far would have been seen"
        if positive
        else reason
    )


def find_on_logs(losses: Floats, least: float) -> list[Spike]:
    """Spikes among positive losses, sought on their logs and given in units of the loss."""
    spikes = find_spikes(
        np.log(losses),
        window=WINDOW,
        minimum=EARLIER_STEPS,
        sigmas=SIGMAS,
        least=lambda median: math.log(math.exp(median) + least),
        jump=math.log(JUMP_RATIO),
        jump_from=FEWEST_STEPS - 1,
    )
    return [Spike(spike.position, math.exp(spike.median), math.exp(spike.threshold)) for spike in spikes]


def find_on_values(losses: Floats, least: float) -> list[Spike]:
    return find_spikes(losses, window=WINDOW, minimum=EARLIER_STEPS, sigmas=SIGMAS, least=lambda median: median + least)


def report(recording: Recording, steps: Ints, losses: Floats, spikes: list[Spike], least: float) -> Finding:
    worst = max(spikes, key=lambda spike: float(losses[spike.position]) - spike.median)
    step, loss = int(steps[worst.position]), float(losses[worst.position])
    others = f", one of {len(spikes)} such steps" if len(spikes) > 1 else ""
    return check.finding(
        f"the loss spikes to {loss:.4g} at {describe_step(recording.series, step)}, from a median of {worst.median:.4g}"
        f" over the steps before it{others}",
        "look at the batch for outliers and broken labels; if the gradient spiked just before (GC201), clip it; warm up"
        " or lower the learning rate",
        step=step,
        evidence={
            **locate_step(recording.series, step),
            "loss": loss,
            "median": worst.median,
            "threshold": worst.threshold,
            "sigmas": SIGMAS,
            "least_rise": least,
            "jump_ratio": JUMP_RATIO,
            "spikes": [int(steps[spike.position]) for spike in spikes],
        },
    )
