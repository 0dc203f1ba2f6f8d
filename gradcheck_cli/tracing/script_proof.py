"""Origins on the tape of a script's step, each proved by running the script once more with it repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from gradcheck_cli.diagnose.nan.explanation import explain
from gradcheck_cli.diagnose.nan.slicing import find_origin
from gradcheck_cli.tape import NanOrigin, Tape
from gradcheck_cli.tracing.proof import REPLACEMENTS, is_independent, is_repaired, is_same_line, with_origin
from gradcheck_cli.tracing.session import NO_REPAIRS, Repairs

MOST_SECONDS = 120.0
Repair = Callable[[Repairs], "Tape | None"]
"""Runs the script again with repairs in the step; None where that failed."""


def find_origins(tape: Tape, parameters: int, run_repaired: Repair) -> tuple[NanOrigin, ...]:
    """Every independent origin; verified where the whole step was finite without them.

    Each costs a run of the script, or two; none is begun after MOST_SECONDS. `parameters` is how many there are.
    """
    origins: list[NanOrigin] = []
    repairs, rest = NO_REPAIRS, tape
    deadline = perf_counter() + MOST_SECONDS
    while rest.sinks:
        origin = find_origin(rest, rest.sinks[0])
        is_new = not any(is_same_line(origin, other) for other in origins)
        if is_repaired(origin, repairs) or (origins and is_new and not is_independent(origin, tape)):
            break
        if is_new:
            origins.append(replace(explain(rest, origin), spread=(reached(tape, origin), parameters)))
        trial = best_trial(origin, repairs, rest, run_repaired, deadline)
        if trial is None:
            break
        repairs, rest = trial
    return tuple(replace(origin, verified=not rest.sinks) for origin in origins)


def best_trial(
    origin: NanOrigin, repairs: Repairs, tape: Tape, run_repaired: Repair, deadline: float
) -> tuple[Repairs, Tape] | None:
    """The origin's bad values replaced by one number, by another if that makes the next fault; None: no run made it."""
    tried: list[tuple[Repairs, Tape]] = []
    for value in REPLACEMENTS:
        more = with_origin(repairs, origin, tape, value)
        left = run_repaired(more) if perf_counter() < deadline else None
        if left is not None:
            tried.append((more, left))
            if not left.sinks:
                return more, left
    return tried[0] if tried else None


def reached(tape: Tape, origin: NanOrigin) -> int:
    """How many parameters ended up with a bad gradient, or bad themselves."""
    kind = "parameter" if origin.phase == "optimizer" else "gradient"
    return len({sink.name for sink in tape.sinks if sink.what == kind})
