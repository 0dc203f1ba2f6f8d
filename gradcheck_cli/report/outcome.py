"""What came of a run in one sentence, whatever the command."""

from __future__ import annotations

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Report
from gradcheck_cli.report import nan_trace
from gradcheck_cli.report import trace_wording as wording
from gradcheck_cli.report.clip_answer import SIGNS, conclude
from gradcheck_cli.report.figures import plural
from gradcheck_cli.report.lines import SYMBOLS
from gradcheck_cli.report.verdict import judge, since_baseline
from gradcheck_cli.tape import NanTrace


def outcome(report: Report) -> tuple[str, str]:
    """Sign and sentence: what the last lines of the table say, or for a trace its first; one line, not escaped."""
    if report.trace is not None:
        sign, sentence = outcome_of_trace(report, report.trace)
    elif report.clip is not None:
        sign, sentence = outcome_of_clip(report, report.clip)
    else:
        sign, _, sentence = judge(report)
        return sign, sentence
    for verdict, style, more in since_baseline(report):
        sign = verdict if style == "error" or report.trace is not None else sign
        sentence = f"{sentence}; {more}"
    return sign, sentence


def outcome_of_trace(report: Report, trace: NanTrace) -> tuple[str, str]:
    """What happened first, and that there is more; or that everything was finite."""
    if trace.clean:
        sign, _, sentence = next(nan_trace.judge(report, trace))
        return sign, sentence
    if not trace.origins:
        return SYMBOLS["error"], f"step {trace.step}: {wording.describe_unexplained(trace)}"
    first = trace.origins[0]
    sentence = f"{wording.describe_time(first, report.run.accumulate)}: {wording.describe_event(first, trace)}"
    more = len(trace.origins) - 1
    return SYMBOLS["error"], sentence + (f", and {plural(more, 'more independent origin')}" if more else "")


def outcome_of_clip(report: Report, advice: ClipAdvice) -> tuple[str, str]:
    """The advice, unless the run failed."""
    sign, _ = SIGNS[advice.verdict]
    if report.error or report.run.ended == "failed":
        failed = f"the run failed after {plural(len(report.series), 'step')}"
        return SYMBOLS["error"], f"{failed}; {conclude(advice)}"
    return sign, conclude(advice)
