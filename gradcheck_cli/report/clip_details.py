"""What the answer rests on, a row for each thing that was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice, ClipQuantile
from gradcheck_cli.report import figures
from gradcheck_cli.report.clip_wording import independent, span, sure
from gradcheck_cli.report.lines import styled
from gradcheck_cli.report.origin_block import block
from gradcheck_cli.report.view import View

REGIMES = {
    "initialisation": "initialisation: the norms of these steps say little of later ones",
    "warm-up": "the learning rate was still warming up",
    "drifting": "drifting: the norms change as training goes on",
    "trained": "trained: past initialisation and warm-up",
    "unknown": "unknown: a list of norms does not say where in the training it begins",
}
DROPPED = {"nonfinite": "the norm was not finite", "skipped": "the gradient scaler skipped the step"}


def details(advice: ClipAdvice, view: View) -> list[Text]:
    """Label and sentences; what was not looked at is left out."""
    title = styled("what this rests on", "title")
    rows = ((label, [styled(view.prose(line)) for line in lines]) for label, lines in facts(advice))
    return [title, *block(rows, view)]


def facts(advice: ClipAdvice) -> Iterator[tuple[str, list[str]]]:
    """Steps, quantiles, drift, tail, regime, and what others use."""
    yield "steps", list(steps(advice))
    yield "quantiles", [describe_quantile(quantile) for quantile in advice.quantiles]
    yield "drift", list(drift(advice))
    yield "tail", list(tail(advice))
    yield "regime", [REGIMES.get(advice.regime, advice.regime)] if advice.regime else []
    yield "usual", list(prior(advice))


def steps(advice: ClipAdvice) -> Iterator[str]:
    """What became of all that were run."""
    yield f"{advice.steps:,} run, {advice.n:,} kept, worth {independent(advice.n_eff)} ones"
    if advice.warmup_excluded:
        yield f"the first {advice.warmup_excluded:,} left out: {advice.warmup_reason}"
    for reason, number in advice.dropped.items():
        if number:
            yield f"{number:,} left out: {DROPPED.get(reason, reason)}"


def describe_quantile(quantile: ClipQuantile) -> str:
    """`p95   0.83 (95% interval 0.74 to 0.95)`, or what it would take."""
    name = f"p{quantile.percentile:g}".ljust(4)
    if quantile.value is None:
        return f"{name} takes {quantile.needed:,} independent steps, these are worth {math.floor(quantile.n_eff):,}"
    return f"{name} {figures.norm(quantile.value)}{sure(quantile.interval)}, worth {independent(quantile.n_eff)} steps"


def drift(advice: ClipAdvice) -> Iterator[str]:
    """The test's outcome, and the slope that goes with it."""
    if advice.drift is None:
        return
    found, p = advice.drift.found, figures.plain(advice.drift.p)
    if found:
        yield f"the norms went {'up' if advice.drift.change > 1 else 'down'} (Mann-Kendall, p = {p})"
    else:
        yield f"none found (Mann-Kendall, p = {p}), which does not mean that there is none"
    interval = sure(advice.drift.interval, lambda one: span(one, figures.plain))
    yield f"factor over 100 steps: {figures.plain(advice.drift.change)}{interval}"


def tail(advice: ClipAdvice) -> Iterator[str]:
    """Its shape, and what that makes of the highest percentile."""
    if advice.tail is None:
        return
    one = advice.tail
    shape = f"{figures.plain(one.shape)}{sure(one.interval, lambda interval: span(interval, figures.plain))}"
    yield f"{'heavy' if one.interval.low > 0 else 'not shown to be heavy'}: generalised Pareto shape {shape}"
    p99 = f"p99 is {figures.norm(one.p99)} by this tail, {figures.norm(one.p99_empirical)} by counting"
    yield f"from the {one.exceedances:,} norms above {figures.norm(one.threshold)}; {p99}"


def prior(advice: ClipAdvice) -> Iterator[str]:
    """What the field uses, and whether the measured value agrees."""
    if advice.prior is None:
        return
    low, high = figures.norm(advice.prior.low), figures.norm(advice.prior.high)
    usual = f"{advice.prior.kind}: {low if low == high else f'{low} to {high}'}"
    agrees = {None: "", True: "; the value measured here agrees", False: "; the value measured here does not agree"}
    yield usual + agrees[advice.prior.agrees]
    yield advice.prior.sentence
