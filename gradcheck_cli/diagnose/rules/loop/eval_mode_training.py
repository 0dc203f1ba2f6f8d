"""# GC514 eval-mode-training

## What it detects

A model that is trained in eval mode, often because nothing switched it back after validation: its dropout and batch
normalisation are silently inactive.

## Why it matters

Without dropout the model overfits sooner. Batch normalisation in eval mode uses running statistics that are no longer
updated: they do not fit the weights, and the loss may run away. Models that `from_pretrained` returns are in eval mode.

## How to fix

1. `model.train()` before each epoch, and again after each validation. PyTorch's page "Autograd mechanics", section
   "Evaluation mode".
2. To keep only batch normalisation fixed, call `eval` on those modules, not on the model.

## How it decides

`eval()` was called on a module that has active dropout or batch normalisation inside, and at least two steps used
gradients of backwards at which it was in eval mode. It holds all parameters of the optimizer that get gradients; or
some, if it was in train mode at earlier steps, then stays in eval mode to the end, and has dropout. So batch
normalisation that is frozen on purpose, or a frozen part, is silent, and a teacher, whose parameters get no gradients,
too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradcheck_cli.audit import EvalSeen
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Window, loops_of
from gradcheck_cli.diagnose.wording import list_names
from gradcheck_cli.records import Recording, Severity

FEWEST = 2


@rule("GC514", "eval-mode-training", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if recording.audit is None or not loops:
        yield check.skip(NO_STEP)
        return
    for loop in loops:
        windows = [window for window in loop.windows if window.backwards]
        for number, module in enumerate(recording.audit.evals):
            inactive = [window for window in windows if is_inactive(window, number)]
            if len(inactive) >= FEWEST and (
                loop.number in module.optimizers or was_left_off(inactive, windows, module)
            ):
                left = len(inactive) < len(windows)
                yield check.finding(
                    f"{module.type} is in eval mode in {len(inactive)} of {len(windows)} steps of {loop.name}"
                    + (", not switched back after validation" if left else "")
                    + f": inactive are {list_names(module.layers)}",
                    "call model.train() before training goes on",
                    location=module.location,
                    evidence={
                        "optimizer": loop.name,
                        "module": module.type,
                        "steps_in_eval_mode": len(inactive),
                        "steps": len(windows),
                        "inactive": list(module.layers),
                    },
                )
                return


def is_inactive(window: Window, number: int) -> bool:
    """Whether a module was in eval mode at all backwards that the step used."""
    return all(number in event.inactive for event in window.backwards)


def was_left_off(inactive: Sequence[Window], windows: Sequence[Window], module: EvalSeen) -> bool:
    """Whether a part was trained with its dropout on, and then without to the end."""
    to_the_end = list(inactive) == list(windows[-len(inactive) :])
    return to_the_end and len(inactive) < len(windows) and any("BatchNorm" not in layer for layer in module.layers)
