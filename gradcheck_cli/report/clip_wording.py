"""Pieces of sentences about clipping."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable

from gradcheck_cli.clip_advice import ClipAdvice, Interval
from gradcheck_cli.records import Report
from gradcheck_cli.report import figures


def span(interval: Interval, show: Callable[[float], str] = figures.norm) -> str:
    """`0.74 to 0.95`; "to" because an end may be negative."""
    return f"{show(interval.low)} to {show(interval.high)}"


def rate(fraction: float) -> str:
    """`5.4%`; "–" for NaN."""
    text = figures.percent(fraction)
    return text if text == "–" else f"{text}%"


def rate_span(interval: Interval) -> str:
    """`2 to 11%`."""
    return f"{span(interval, figures.percent)}%"


def sure(interval: Interval | None, show: Callable[[Interval], str] = span) -> str:
    """` (95% interval 0.74 to 0.95)`, to stand behind a value; empty where there is no interval."""
    return f" (95% interval {show(interval)})" if interval else ""


def independent(n_eff: float) -> str:
    """`96 independent`; rounded down, so that it never looks like more than it is."""
    return f"{math.floor(n_eff):,} independent"


def is_norm_list(report: Report) -> bool:
    """Whether all that there is are norms from a file: nothing ran on a device."""
    return not report.run.device


def describe_need(report: Report, advice: ClipAdvice) -> str:
    """How to get as many steps as it takes; empty where there are enough."""
    needed = advice.steps_needed
    if needed is None:
        return ""
    if is_norm_list(report):
        return f"record the norms of {needed:,} steps"
    return f"gradcheck {report.command} {shlex.quote(report.run.target)} --steps {needed}"
