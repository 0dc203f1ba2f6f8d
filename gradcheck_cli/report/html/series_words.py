"""What is said of loss and gradient norm beside their chart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradcheck_cli.records import Bools, Finding, Ints, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.header import ROUNDING
from gradcheck_cli.report.html.step_columns import tell

SPIKES = {"GC201": "gradient spike", "GC202": "loss spike"}


def rows(report: Report, columns: Sequence[Ints]) -> list[dict[str, object]]:
    """What is told of a column: each series, and what happened there; "" where there is nothing to tell."""
    series, happened = report.series, acted(report)
    told: list[tuple[str, list[str]]] = []
    if report.run.sees_loss:
        told.append(("loss", [tell(series.loss[column]) for column in columns]))
    if report.trace is None:
        told.append(("gradient norm", [tell(series.grad_norm[column]) for column in columns]))
    if happened.any():
        after = [tell(series.grad_norm_clipped[column][happened[column]]) for column in columns]
        told.append(("after clipping", after))
    if series.skipped.any():
        told.append(("skipped", ["yes" if series.skipped[column].any() else "" for column in columns]))
    return [{"name": name, "values": values} for name, values in told]


def describe(report: Report) -> str:
    """For those who do not see it."""
    series, steps = report.series, len(report.series)
    parts = [f"{figures.plural(steps, 'step')}."]
    if report.run.sees_loss:
        parts.append(f"The loss goes from {figures.plain(series.loss[0])} to {figures.plain(series.loss[-1])}.")
    if report.trace is not None:
        return " ".join(parts)
    finite = series.grad_norm[np.isfinite(series.grad_norm)]
    if len(finite):
        low, middle, high = (figures.plain(reduce(finite)) for reduce in (np.min, np.median, np.max))
        parts.append(f"The gradient norm lies between {low} and {high}, median {middle}.")
    if len(finite) < steps:
        parts.append(f"It is not finite in {figures.plural(steps - len(finite), 'step')}.")
    for finding in report.diagnosis.findings:
        if finding.code in SPIKES:
            steps_named = ", ".join(f"{step:,}" for step in spike_steps(finding))
            parts.append(f"A {SPIKES[finding.code]} ({finding.code}) is marked at step {steps_named}.")
    return " ".join(parts)


def spike_steps(finding: Finding) -> list[int]:
    """All steps that the finding is about."""
    listed = finding.evidence.get("spikes")
    own = [] if finding.step is None else [finding.step]
    return [int(step) for step in listed] if isinstance(listed, list | tuple) else own


def legend(report: Report, thresholds: bool) -> list[tuple[str, str]]:
    """Kind and name of what is drawn and not written beside it."""
    series = report.series
    entries = [
        ("norm", "gradient norm before clipping", bool(acted(report).any())),
        ("after", "after clipping", bool(acted(report).any())),
        ("spike", "spike", any(finding.code in SPIKES for finding in report.diagnosis.findings)),
        ("bad", "not finite", is_bad(report)),
        ("clipped", f"clipped: {figures.plural(int(acted(report).sum()), 'step')}", bool(acted(report).any())),
        ("skipped", f"skipped: {figures.plural(int(series.skipped.sum()), 'step')}", bool(series.skipped.any())),
        ("left-out", "left out of the advice", bool(report.clip and report.clip.warmup_excluded)),
        ("candidate", "threshold", thresholds),
    ]
    return [(kind, name) for kind, name, there in entries if there]


def is_bad(report: Report) -> bool:
    """Whether anything that is drawn is not finite."""
    loss = report.run.sees_loss and not np.isfinite(report.series.loss).all()
    return bool(loss or (report.trace is None and not np.isfinite(report.series.grad_norm).all()))


def joined_note(columns: Sequence[Ints]) -> list[str]:
    """That a column stands for several steps, where it does."""
    most = max(len(column) for column in columns)
    lines = "the line is their median, the band reaches from the least to the largest"
    return [f"each point stands for up to {most} steps: {lines}"] if most > 1 else []


def acted(report: Report) -> Bools:
    """The steps whose gradient clipping made shorter (steps,)."""
    series = report.series
    shorter: Bools = series.grad_norm_clipped < series.grad_norm * (1 - ROUNDING)
    return shorter
