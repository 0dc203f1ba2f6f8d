"""# GC506 step-bypasses-scaler

## What it detects

`optimizer.step()` called directly though a GradScaler has multiplied the loss.

## Why it matters

Unless the gradients were unscaled, they are larger by the loss scale, 65536 at the start: plain SGD explodes at once;
Adam hides it, but weight decay, eps and clipping are off by that factor. Even after `unscale_`, the check for Inf and
NaN is bypassed, and the first overflow, which is normal with fp16, goes into the weights.

## How to fix

1. `scaler.step(optimizer)` and then `scaler.update()`. PyTorch's page "Automatic Mixed Precision package", on
   GradScaler.

## How it decides

A step was not made inside `GradScaler.step`, although every backward before it was called on what `GradScaler.scale`
returned. A script that divides its gradients by hand is seen doing so, and left in peace; so is a scale of 1. Steps of
which gradients were not looked at (after the first 200) do not count.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Window, is_scale, loops_of
from gradcheck_cli.records import Recording, Severity


@rule("GC506", "step-bypasses-scaler", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        bypassing = [window for window in loop.windows if bypasses(window)]
        if bypassing:
            unscaled = any(event.kind == "unscale" for event in bypassing[0].used)
            scale = bypassing[0].end.scale
            yield check.finding(
                f"optimizer.step() of {loop.name} is called directly, on gradients "
                + ("that nothing checks for Inf and NaN" if unscaled else f"that are {scale:g} times too large"),
                "call scaler.step(optimizer) and scaler.update() instead",
                location=bypassing[0].end.location,
                evidence={"optimizer": loop.name, "steps": len(bypassing), "scale": scale, "unscaled": unscaled},
            )
            return


def bypasses(window: Window) -> bool:
    """Whether the optimizer was called directly after scaled losses."""
    scaled = bool(window.backwards) and all(event.scaled for event in window.backwards)
    end = window.end
    return (
        scaled
        and end.kind == "step"
        and not end.scaled
        and is_scale(end.scale)
        and window.measured
        and not window.edited
    )
