"""# GC405 too-few-steps

## What it detects

A run too short for the percentile that was asked for, or to judge the tail of the norms.

## Why it matters

A percentile of too few steps is a guess. Norms of neighbouring steps are alike, so that hundreds of steps can be worth
a dozen independent ones; where the norms still drift, they are worth even less.

## How to fix

1. Run more steps: the finding says how many, and `--until-stable` stops by itself.
2. Begin where the norms have settled: `--checkpoint` of a later state.
3. Ask for a lower percentile: `--percentile 90`.

## How it decides

The 90th, 95th and 99th percentile need 36, 72 and 368 independent steps: so many that the largest lies above the
percentile with 97.5 %. How many the kept steps are worth follows from their autocorrelations. A lower percentile that
can be had is given instead, and this is info; without one there is no value (`insufficient-data`), a warning. There is
none either where the percentile can be had, but fewer than 104 steps were kept: too few to judge how heavy the tail is.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.clip_advice import ClipAdvice, ClipQuantile
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.records import Severity


@rule("GC405", "too-few-steps", Severity.WARNING)
def check(advice: ClipAdvice, limits: Limits) -> Iterator[Outcome]:
    asked = next((one for one in advice.quantiles if one.percentile == advice.percentile_asked), None)
    if advice.steps_needed is not None and asked is not None:
        yield check.finding(
            describe(advice, asked),
            f"--steps {advice.steps_needed}, or --until-stable",
            severity=Severity.WARNING if advice.max_norm is None else Severity.INFO,
            evidence={"needed": asked.needed, "n_eff": asked.n_eff, "n": advice.n, "steps": advice.steps},
        )


def describe(advice: ClipAdvice, asked: ClipQuantile) -> str:
    """What there are too few steps for."""
    kept = f"the {advice.n} kept of {advice.steps}"
    if asked.n_eff >= asked.needed:
        return f"{kept} are enough for p{asked.percentile:g}, but not to judge the tail of the norms (no value)"
    instead = "no value" if advice.max_norm is None else f"p{advice.percentile:g} instead"
    if advice.percentile == asked.percentile:
        instead = "a rough value, without an interval"
    return (
        f"p{asked.percentile:g} needs {asked.needed} independent steps; {kept} are worth {int(asked.n_eff)} for it "
        f"({instead})"
    )
