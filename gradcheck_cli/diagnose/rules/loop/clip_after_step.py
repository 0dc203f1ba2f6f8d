"""# GC501 clip-after-step

## What it detects

Gradients that are clipped after `optimizer.step` has used them, before the next backward: the clip has no effect.

## Why it matters

The step is made with the full gradient. The code says that this run is protected from large gradients, and it is not;
nothing fails, and the norm that is logged looks as it should.

## How to fix

1. Clip between the last `backward` of the step and `optimizer.step`.
2. With a GradScaler: `scaler.unscale_(optimizer)`, clip, `scaler.step(optimizer)`. PyTorch's page "Automatic Mixed
   Precision examples", section "Gradient clipping", shows it.

## How it decides

By the order of calls. After most steps, a clip of this optimizer's gradients comes before the next backward that
reaches them, and in no step does one come between a backward and the step. A clip at infinity measures the norm only,
and is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradcheck_cli.audit import LoopEvent
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, clips_in, loops_of, most
from gradcheck_cli.records import Recording, Severity


@rule("GC501", "clip-after-step", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        later = [window.events for window in loop.windows[1:]] + ([loop.rest] if loop.rest else [])
        late = [clips[0] for events in later if (clips := clips_in(before_backward(events)))]
        in_time = any(clips_in(window.events[len(before_backward(window.events)) :]) for window in loop.windows)
        if late and most(late, later) and not in_time:
            yield check.finding(
                f"the gradients of {loop.name} are clipped after the step that used them: every step is made with the"
                " full gradient",
                "move the clip between backward and optimizer.step",
                location=late[0].location,
                evidence={"optimizer": loop.name, "clips_after_step": len(late), "steps": len(loop.windows)},
            )
            return


def before_backward(events: Sequence[LoopEvent]) -> Sequence[LoopEvent]:
    """The events before the first backward."""
    return events[: next((i for i, event in enumerate(events) if event.kind == "backward"), len(events))]
