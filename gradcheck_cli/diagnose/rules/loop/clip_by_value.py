"""# GC509 clip-by-value

## What it detects

`clip_grad_value_` that acts: the gradient after it points elsewhere than before.

## Why it matters

Each element is cut on its own, so large ones lose and small ones do not: the step no longer follows the gradient.
Clipping by norm keeps the direction (Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
networks", 2013, section 3.2).

## How to fix

1. `clip_grad_norm_(parameters, max_norm)`; `gradcheck recommend-clip` says at which norm.
2. If you want to bound single elements, raise the value until it acts on outliers only.

## How it decides

The cosine between the whole gradient and the clipped one is measured at the first 50 calls. It is information where it
once falls below 0.99, a warning where the median does below 0.9. Where it stays above, the clip never acted to speak
of, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from statistics import median

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import clips_in
from gradcheck_cli.records import Recording, Severity

ACTS = 0.99
TURNS = 0.9


@rule("GC509", "clip-by-value", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    events = recording.audit.events if recording.audit else ()
    by_value = [event for event in clips_in(events) if event.kind == "clip-value"]
    clips = [event for event in by_value if isfinite(event.cosine)]
    if not clips:
        if by_value:
            yield check.skip("the gradients that were clipped by value were not finite")
        return
    worst = min(clips, key=lambda event: event.cosine)
    middle = median(event.cosine for event in clips)
    if worst.cosine < ACTS:
        yield check.finding(
            f"clipping at the value {worst.limit:g} turns the gradient: the cosine between before and after is"
            f" {middle:.3f} in the median, {worst.cosine:.3f} at worst",
            "clip by norm, which keeps the direction: clip_grad_norm_",
            severity=Severity.WARNING if middle < TURNS else Severity.INFO,
            location=worst.location,
            evidence={
                "limit": worst.limit,
                "median_cosine": middle,
                "smallest_cosine": worst.cosine,
                "clips": len(clips),
                "warning_below": TURNS,
                "information_below": ACTS,
            },
        )
