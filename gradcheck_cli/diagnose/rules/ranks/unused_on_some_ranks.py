"""# GC705 unused-on-some-ranks

## What it detects

Parameters that got a gradient on some ranks and none on others in the same step.

## Why it matters

DistributedDataParallel waits on every rank for the gradient of every parameter. A rank that has none for some of them
goes on without, or stops with "Expected to have finished reduction", and the others wait for it until their time limit:
a run that hangs at a step that depends on the data. FSDP has the same need. Parameters that no rank uses are another
matter: GC103.

## How to fix

1. Let every rank use every parameter in every step: add the outputs of a branch that is left out times 0 to the loss,
   send at least one token to each expert.
2. `DistributedDataParallel(model, find_unused_parameters=True)`: it searches the graph in every step, and averages in a
   zero gradient for the ranks that have none.
3. If a branch is chosen at random: draw on all ranks with the same seed, so that all take the same one.

## How it decides

By whether `.grad` was None after the backward pass, rank by rank and step by step. One finding for the outermost module
of which all trainable parameters were so in some step, with the first such step and the ranks without a gradient in it.
It is information where the model came wrapped and looks for unused parameters, as somebody has thought of it there. Not
evaluated with one rank or without a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.ranks.places import ONE_RANK, list_ranks
from gradcheck_cli.diagnose.selection import by_topmost_module
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.ranks import Ranks, UnusedOnSome
from gradcheck_cli.records import Finding, Recording, Severity


@rule("GC705", "unused-on-some-ranks", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    ranks = recording.ranks
    if ranks is None:
        return
    if ranks.size < 2 or not len(ranks.loss):
        yield check.skip(ONE_RANK if ranks.size < 2 else "no step was recorded")
        return
    unused = {one.parameter: one for one in ranks.unused}
    trainable = [parameter for parameter in recording.parameters if parameter.requires_grad]
    chosen = [parameter for parameter in trainable if parameter.name in unused]
    for layer, group in by_topmost_module(chosen, trainable).items():
        yield report(ranks, layer, [unused[parameter.name] for parameter in group])


def report(ranks: Ranks, layer: str, group: Sequence[UnusedOnSome]) -> Finding:
    foreseen = ranks.finds_unused and ranks.strategy == "own"
    first = min(group, key=lambda one: one.step)
    steps = max(one.steps for one in group)
    subject = f"{layer} ({count(len(group), 'parameter')})" if group[0].parameter != layer else layer
    often = f"in {steps} of {count(len(ranks.loss), 'step')}"
    return check.finding(
        f"{subject} got no gradient on {list_ranks(first.ranks)} at step {first.step}, while other ranks had one;"
        f" so {often}"
        + ("" if foreseen else ": DistributedDataParallel without find_unused_parameters=True hangs there"),
        "expected where a branch depends on the data; find_unused_parameters=True takes care of it"
        if foreseen
        else "let every rank use it in every step (times 0 where it does not count), or wrap the model with"
        " find_unused_parameters=True",
        layer=layer,
        severity=Severity.INFO if foreseen else Severity.WARNING,
        step=first.step,
        evidence={
            "parameters": [one.parameter for one in group],
            "step": first.step,
            "ranks_without_gradient": list(first.ranks),
            "steps_with_difference": steps,
            "recorded_steps": len(ranks.loss),
            "strategy": ranks.strategy,
            "finds_unused": ranks.finds_unused,
            "ranks": ranks.size,
        },
    )
