"""# GC502 clip-before-unscale

## What it detects

Gradients that are clipped while they are still multiplied by the loss scale of a GradScaler.

## Why it matters

The threshold is compared with gradients that are, at the start, 65536 times too large. What really applies is the
threshold over the scale: nearly every step is cut down to next to nothing, by an amount that changes whenever the
scale does. With Adam the run looks merely slow.

## How to fix

1. `scaler.unscale_(optimizer)` between the last backward and the clip; `scaler.step` then knows that it has been done.
   PyTorch's page "Automatic Mixed Precision examples", section "Gradient clipping".

## How it decides

In most steps, every backward was called on what `GradScaler.scale` returned, and a clip follows without `unscale_`
before it. A script that divides its gradients by hand is seen doing so, and left in peace; so is a clip at infinity,
and a scale of 1. Steps of which gradients were not looked at (after the first 200) do not count.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.audit import LoopEvent
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Window, clips_in, is_scale, loops_of, most
from gradcheck_cli.records import Recording, Severity


@rule("GC502", "clip-before-unscale", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        windows = [window for window in loop.windows if window.measured]
        clips = [clip for window in windows if (clip := clip_of_scaled(window))]
        if clips and most(clips, windows):
            clip = clips[0]
            really = clip.limit / clip.scale
            yield check.finding(
                f"the gradients of {loop.name} are clipped at {clip.limit:g} while they are multiplied by the loss"
                f" scale of {clip.scale:g}: the threshold that really applies is {really:.3g}",
                "call scaler.unscale_(optimizer) before the clip",
                location=clip.location,
                evidence={"optimizer": loop.name, "limit": clip.limit, "scale": clip.scale, "limit_applied": really},
            )
            return


def clip_of_scaled(window: Window) -> LoopEvent | None:
    """The first clip of gradients that are still scaled."""
    if not window.backwards or not all(event.scaled for event in window.backwards):
        return None
    for index, event in enumerate(window.used):
        if event.kind in ("unscale", "edit", "replace"):
            return None
        after_backward = any(one.kind == "backward" for one in window.used[:index])
        if clips_in([event]) and after_backward and is_scale(event.scale):
            return event
    return None
