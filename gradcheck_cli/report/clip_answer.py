"""The answer in the first lines: the value, how sure it is, and what it will do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.clip_wording import describe_need, independent, is_norm_list, rate, rate_span, sure
from gradcheck_cli.report.lines import SYMBOLS, styled, wrap
from gradcheck_cli.report.verdict import since_baseline
from gradcheck_cli.report.view import View

SIGNS = {
    "clip": (SYMBOLS["info"], "info"),
    "not-needed": ("✓", "ok"),
    "fix-first": (SYMBOLS["error"], "error"),
    "insufficient-data": (SYMBOLS["warning"], "warning"),
}
CONCLUSIONS = {
    "not-needed": "clipping is not needed",
    "fix-first": "fix this first, clipping would hide it",
    "insufficient-data": "too few steps for a value",
}
LEADS = {
    "not-needed": "if you want a guard against spikes anyway:",
    "fix-first": "measured on the run as it is, so ask again when that is mended:",
}
EARLY = {
    "initialisation": "measured at initialisation only, where norms change most",
    "warm-up": "measured while the learning rate was warming up, so norms may change when it is not",
}
EFFECTS = {
    "never-acts": ": it never acts",
    "normalises": ": it sets the length of most steps, rather than guard against spikes",
    "acts": "",
}
Line = tuple[str, str]


def answer(report: Report, advice: ClipAdvice, view: View) -> list[Text]:
    """The verdict where it is not simply to clip, the value with its interval, and its promise."""
    lines = [*headline(advice), *value(advice), *promise(advice), *limits(report, advice), *judgement(advice)]
    return [part for line, style in lines for part in wrap(styled(view.prose(line), style), view.width, "  ", "")]


def headline(advice: ClipAdvice) -> Iterator[Line]:
    """What to do, and why, where it is not to clip."""
    if advice.verdict != "clip":
        sign, style = SIGNS[advice.verdict]
        yield f"{sign} {conclude(advice)}", style


def value(advice: ClipAdvice) -> Iterator[Line]:
    """max_norm and what it is of."""
    if advice.max_norm is None:
        return
    if advice.verdict in LEADS:
        yield LEADS[advice.verdict], ""
    verb = "clip at " if advice.verdict == "clip" else ""
    yield f"{verb}max_norm {figures.norm(advice.max_norm)}{sure(advice.interval)}", "title"
    if advice.percentile is not None:
        of = f"the {figures.ordinal(advice.percentile)} percentile of {figures.plural(advice.n, 'step')}"
        yield f"  {of}, worth {independent(advice.n_eff)} ones", ""


def promise(advice: ClipAdvice) -> Iterator[Line]:
    """How often it will clip, and whether the same promise was kept within the run."""
    if advice.expected_rate is not None:
        steps = f"the next {figures.plural(advice.horizon, 'step')}"
        yield f"  it will clip {rate(advice.expected_rate)} of {steps}{sure(advice.rate_interval, rate_span)}", ""
    if advice.validated_rate is not None:
        check = f"  fitted on the first 70%, it clipped {rate(advice.validated_rate)} of the rest"
        promised = advice.validated_interval
        kept = promised is None or promised.low <= advice.validated_rate <= promised.high
        broken = "" if kept else ", so do not rely on it"
        yield check + (f" (promised: {rate_span(promised)}{broken})" if promised else ""), "" if kept else "warning"


def limits(report: Report, advice: ClipAdvice) -> Iterator[Line]:
    """Where the value is less than what was asked for, and how to get that."""
    sign = SYMBOLS["warning"]
    need = describe_need(report, advice)
    if advice.percentile is not None and advice.percentile < advice.percentile_asked:
        yield f"{sign} too few steps for the {figures.ordinal(advice.percentile_asked)} percentile", "warning"
    if need:
        yield f"  → {need}", "title"
    if advice.max_norm is not None and advice.regime in EARLY:
        later = "norms from later in the training" if is_norm_list(report) else "--checkpoint of a later state"
        yield f"{sign} {EARLY[advice.regime]}: come back with {later}", "warning"


def judgement(advice: ClipAdvice) -> Iterator[Line]:
    """The user's own value."""
    if advice.judged is None:
        return
    judged = advice.judged
    clips = f"{rate(judged.clip_rate)} of the steps{sure(judged.rate_interval, rate_span)}{EFFECTS[judged.effect]}"
    yield f"your max_norm {figures.norm(judged.max_norm)} clips {clips}", "" if judged.effect == "acts" else "warning"


def closing(report: Report, advice: ClipAdvice, view: View) -> list[Text]:
    """The last lines: the verdict and why; and that the run failed, if it did."""
    sign, style = SIGNS[advice.verdict]
    lines = wrap(styled(view.prose(f"{sign} {conclude(advice)}"), style), view.width, "  ", "")
    if report.error or report.run.ended == "failed":
        failed = f"{SYMBOLS['error']} the run failed after {figures.plural(len(report.series), 'step')}"
        lines += wrap(styled(view.prose(failed), "error"), view.width, "  ", "")
    for sign, style, sentence in since_baseline(report):
        lines += wrap(styled(view.prose(f"{sign} {sentence}"), style), view.width, "  ", "")
    return lines


def conclude(advice: ClipAdvice) -> str:
    """The verdict with its reasons."""
    known = f"clip at max_norm {figures.norm(advice.max_norm)}" if advice.max_norm is not None else "clip"
    what = CONCLUSIONS.get(advice.verdict, known)
    return f"{what}: {'; '.join(advice.reasons)}" if advice.reasons else what
