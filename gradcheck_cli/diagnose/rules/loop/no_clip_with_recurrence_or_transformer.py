"""# GC515 no-clip-with-recurrence-or-transformer

## What it detects

A recurrent network or a transformer whose gradient norm spikes, in a script that does not clip.

## Why it matters

These are the architectures whose gradients are known to explode now and then: recurrence multiplies by the same matrix
at every time step (Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013), and
transformers are trained with clipping almost without exception (GPT-3, PaLM and LLaMA at a norm of 1). One spike moves
the weights far, and spoils Adam's averages for hundreds of steps.

## How to fix

1. `clip_grad_norm_(model.parameters(), max_norm)` between backward and step; `gradcheck recommend-clip` says at which
   norm.
2. GC201 names the steps, and the parameters that drive them.

## How it decides

GC201 finds a spike; a module of the model is recurrent, an attention or a transformer's, by the name of its type or by
what it was seen to compute; and of the whole loop no clip below infinity was seen, nor any change of gradients by hand.
Not evaluated where GC201 is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules import gradient_spike
from gradcheck_cli.diagnose.windows import clips_in
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Finding, Recording, Severity

KINDS = re.compile(r"(RNN|LSTM|GRU|Recurrent|Attention|Transformer)", re.IGNORECASE)


@rule("GC515", "no-clip-with-recurrence-or-transformer", Severity.WARNING)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    kinds = [module.type for module in recording.modules if KINDS.search(module.type)] + kinds_heard(recording)
    events = recording.audit.events if recording.audit else ()
    if not kinds or clips_in(events) or any(event.kind == "edit" for event in events):
        return
    for outcome in gradient_spike.check.check(recording, limits):
        if isinstance(outcome, Finding):
            spikes = len(outcome.evidence["spikes"])
            yield check.finding(
                f"the gradient norm spikes {count(spikes, 'time')}, to {outcome.evidence['ratio']:.3g} times its"
                f" median, in a model with {kinds[0]}, and the script does not clip",
                "clip_grad_norm_(model.parameters(), max_norm) between backward and step",
                step=outcome.step,
                evidence={"module": kinds[0], "spikes": spikes, "ratio": outcome.evidence["ratio"]},
            )
        else:
            yield check.skip(outcome.reason)


def kinds_heard(recording: Recording) -> list[str]:
    """Recurrence and attention that were seen at work, whatever the module is called."""
    signals = recording.signals
    if signals is None:
        return []
    attention = ["attention"] if signals.attention.sites else []
    return attention + (["recurrence"] if signals.recurrence.sites else [])
