"""# GC513 optimizer-holds-stale-parameters

## What it detects

An optimizer that was made before its model, or a part of it, was made anew: it goes on updating parameters that nobody
uses, and the new ones stay as they are.

## Why it matters

Loss and gradients look as they should, the optimizer steps, and nothing is learnt, or nothing by that part.

## How to fix

1. Make the optimizer last: after the model has been built, loaded, moved to its device, and had its head replaced.
   PyTorch's page "torch.optim", section "Constructing it".
2. To put in new weights, copy them into the parameters that there are: `load_state_dict`, or `nn.init` functions.

## How it decides

At the optimizer's second step, parameters that it holds have no gradient, and parameters of a model that have one, in
no optimizer, are of the same shapes: as many as are counted. A parameter that is merely missing from the optimizer,
with no such twin in it, is GC106's business.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.windows import NO_STEP
from gradcheck_cli.diagnose.wording import count, list_names
from gradcheck_cli.records import Recording, Severity


@rule("GC513", "optimizer-holds-stale-parameters", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    audit = recording.audit
    if audit is None or not any(event.kind in ("step", "skipped") for event in audit.events):
        yield check.skip(NO_STEP)
        return
    for optimizer in audit.optimizers:
        if optimizer.stale:
            yield check.finding(
                f"{optimizer.type} holds {count(len(optimizer.stale), 'parameter')} that get no gradient, while those"
                f" in their place are in no optimizer: {list_names(optimizer.stale)}",
                "make the optimizer after the model has its final modules",
                location=optimizer.location,
                evidence={"optimizer": optimizer.type, "parameters": list(optimizer.stale)},
            )
            return
