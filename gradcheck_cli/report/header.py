"""What was run, and how it went, in a few lines."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import zip_longest

import numpy as np
from rich.text import Text

from gradcheck_cli.records import Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.lines import pad, styled, wrap
from gradcheck_cli.report.rank_rows import describe_ranks
from gradcheck_cli.report.view import View

ROUNDING = 1e-6
ENDED = {
    "data-exhausted": "the dataloader can be read only once and was exhausted",
    "interrupted": "it was interrupted",
    "stable": "the percentile is known well enough (--until-stable)",
    "stop-above": "the gradient norm exceeded --stop-above",
    "nonfinite-loss": "the loss was not finite (--keep-going carries on)",
    "failed": "it failed",
}


def header(report: Report, view: View, leave_out: Collection[str] = ()) -> list[Text]:
    """The title, the facts in one or two columns but for those labels, the notes."""
    title = styled(view.prose(f"gradcheck {report.command}  "), "title") + styled(view.name(report.run.target))
    pairs = [(label, value) for label, value in facts(report) if label not in leave_out]
    return [*wrap(title, view.width, "  ", ""), Text(""), *grid(pairs, view), *notes(report, view)]


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Label and value."""
    run, series, steps = report.run, report.series, len(report.series)
    if run.model:
        yield "model", run.model
    yield "parameters", parameters(report)
    yield "device", ", ".join([run.device, run.precision] + ([] if run.training else ["eval mode"]))
    if report.ranks is not None:
        yield "ranks", describe_ranks(report.ranks)
    yield "steps", steps_recorded(report)
    known = steps and run.sees_loss
    yield "loss", f"{figures.plain(series.loss[0])} → {figures.plain(series.loss[-1])}" if known else "–"
    yield "gradient norm", gradient_norm(report)
    if run.max_norm is not None:
        clipped = int((series.grad_norm_clipped < series.grad_norm * (1 - ROUNDING)).sum())
        yield "clipped", f"{clipped:,} of {figures.plural(steps, 'step')} (max norm {run.max_norm:g})"
    if run.uses_scaler:
        yield "skipped", f"{int(series.skipped.sum()):,} of {figures.plural(steps, 'step')} (gradient scaler)"
    seconds = float(series.seconds.sum())
    yield "overhead", f"{figures.percent(float(series.overhead.sum()) / seconds)}% of step time" if seconds else "–"
    yield "seed", "none" if run.seed is None else str(run.seed)
    yield "torch", run.versions.get("torch", "–")


def parameters(report: Report) -> str:
    """10.7M, all trainable."""
    trainable = "all" if report.trainable_count == report.parameter_count else figures.count(report.trainable_count)
    return f"{figures.count(report.parameter_count)}, {trainable} trainable"


def steps_recorded(report: Report) -> str:
    """50, or 32 of 50, and what one step accumulates."""
    steps, asked = len(report.series), report.run.steps_requested
    recorded = f"{steps:,}" if steps >= asked else f"{steps:,} of {asked:,}"
    return f"{recorded}, {report.run.accumulate} batches each" if report.run.accumulate > 1 else recorded


def gradient_norm(report: Report) -> str:
    """Median and 95th percentile of the finite global norms before clipping, and how many are not finite."""
    norms = report.series.grad_norm
    finite = norms[np.isfinite(norms)]
    parts = []
    if len(finite):
        parts = [f"median {figures.plain(np.median(finite))}", f"p95 {figures.plain(np.percentile(finite, 95))}"]
    if len(finite) < len(norms):
        parts.append(f"not finite in {figures.plural(len(norms) - len(finite), 'step')}")
    return ", ".join(parts) or "–"


def grid(pairs: list[tuple[str, str]], view: View) -> list[Text]:
    """Labels and values, in two columns, read down, where both have room."""
    label_width = max(len(label) for label, _ in pairs) + 4
    cells = [pad(styled(f"  {label}", "quiet"), label_width) + styled(view.prose(value)) for label, value in pairs]
    half = (len(cells) + 1) // 2
    left, right = cells[:half], cells[half:]
    left_width = max(cell.cell_len for cell in left) + 2
    if left_width + max((cell.cell_len for cell in right), default=0) > view.width:
        return [line for cell in cells for line in wrap(cell, view.width, " " * label_width, "")]
    return [pad(one, left_width) + other for one, other in zip_longest(left, right, fillvalue=Text(""))]


def notes(report: Report, view: View) -> list[Text]:
    """What there is to know about the run, a line or more for each sentence."""
    sentences = ending(report)
    lines = [
        line for sentence in sentences for line in wrap(styled(view.prose(sentence)), view.width, " " * 8, "  note  ")
    ]
    return [Text(""), *lines] if lines else []


def ending(report: Report) -> list[str]:
    """How the run ended, if not as asked for, and the notes on it."""
    if report.run.ended == "completed" or report.error:
        return list(report.run.notes)
    why = ENDED.get(report.run.ended, report.run.ended)
    return [f"the run stopped after {figures.plural(len(report.series), 'step')}: {why}", *report.run.notes]
