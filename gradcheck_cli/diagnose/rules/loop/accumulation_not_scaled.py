"""# GC503 accumulation-not-scaled

## What it detects

Gradients of several micro-batches added up for one step, each of a loss that is a mean, and not divided by their
number: the sum is K times the gradient of the whole batch.

## Why it matters

With SGD the learning rate is K times what it says, and a clipping threshold K times too low; whoever changes K to fit
another GPU changes the training. With Adam most of it cancels, but not its eps, nor clipping.

## How to fix

1. `(loss / K).backward()`, K being the number of micro-batches a step. PyTorch's page "Automatic Mixed Precision
   examples", section "Gradient accumulation", has the loop.
2. Or let the loss be a sum over samples or tokens, divided by the number in all micro-batches together.

## How it decides

In most steps, K > 1 backwards came by the same lines, each with a graph of its own. From each loss the autograd graph
is read back to where it was reduced: a mean (`reduction="mean"`, `.mean()`), multiplied by about 1 since (0.75 to
1.25, the loss scale left out). A loss reduced by a sum is something else, and silent. So are gradients that the script
changes by hand before the step, a loop over losses of one graph (`retain_graph`), and different lines for different
losses. Not evaluated where the graph does not show the reduction, for instance behind a compiled model that returns
its loss. If the sum over tasks is what you mean, ignore it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP, Window, loops_of, most
from gradcheck_cli.records import Recording, Severity

LEAST = 0.75
MOST = 1.25


@rule("GC503", "accumulation-not-scaled", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    loops = loops_of(recording)
    if not loops:
        yield check.skip(NO_STEP)
    for loop in loops:
        windows = [window for window in loop.windows if window.measured]
        unscaled = [window for window in windows if is_unscaled(window)]
        unread = [window for window in windows if is_unread(window)]
        if unscaled and most(unscaled, windows):
            number = len(unscaled[0].repeated)
            yield check.finding(
                f"each step of {loop.name} adds up the gradients of {number} micro-batches, and each loss is a mean"
                f" that is not divided by {number}: the sum is {number} times the gradient of the whole batch",
                f"(loss / {number}).backward()",
                location=unscaled[0].repeated[0].location,
                evidence={
                    "optimizer": loop.name,
                    "micro_batches": number,
                    "factor": unscaled[0].repeated[0].factor,
                    "factor_due": 1 / number,
                },
            )
            return
        if unread and most(unread, windows):
            yield check.skip("the autograd graph does not show whether the losses that are added up are means")
            return


def is_unscaled(window: Window) -> bool:
    """Whether means were added up as they are."""
    losses = window.repeated
    as_they_are = all(one.reduction == "mean" and LEAST < one.factor < MOST for one in losses)
    return len(losses) > 1 and as_they_are and not window.edited and not window.carried


def is_unread(window: Window) -> bool:
    """Whether several losses were added up of which nothing is known, and none was divided."""
    losses = window.repeated
    unknown = all(not one.reduction and (one.factor == 1 or one.factor != one.factor) for one in losses)
    return len(losses) > 1 and unknown and not window.edited
