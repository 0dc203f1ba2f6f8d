"""Why it happened, and what repairs it."""

from __future__ import annotations

from dataclasses import replace

from gradcheck_cli.diagnose.nan.causes import CAUSES
from gradcheck_cli.diagnose.nan.evidence import Evidence
from gradcheck_cli.tape import NanOrigin, Tape, TensorState


def explain(tape: Tape, origin: NanOrigin) -> NanOrigin:
    """The origin with its cause, explanation, fix and the states of what the operator of the forward pass read.

    `tape` is the one on which the origin was found. Every origin gets a cause: the general ones come last.
    """
    evidence = Evidence.of(tape, origin)
    cause = next(cause for cause in CAUSES if cause.applies(evidence))
    return replace(
        origin,
        cause=cause.id,
        explanation=cause.explain(evidence),
        fix=cause.fix(evidence),
        input_stats=input_stats(evidence),
    )


def input_stats(evidence: Evidence) -> tuple[tuple[str, TensorState], ...]:
    """The inputs by argument, those of a list numbered; and for a derivative the gradient that came in."""
    names = [operand.argument for operand in evidence.inputs]
    numbered = [
        (name if names.count(name) == 1 else f"{name}[{names[:index].count(name)}]", operand.state)
        for index, (name, operand) in enumerate(zip(names, evidence.inputs, strict=True))
    ]
    gradient = [("gradient", evidence.gradient)] if evidence.gradient else []
    return tuple(numbered + gradient)
