"""Loss and gradient norm over the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradcheck_cli.records import Bools, Ints, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.clip_sparkline import left_out
from gradcheck_cli.report.html import thresholds
from gradcheck_cli.report.html.drawing import (
    Box,
    Chart,
    Level,
    Line,
    Mark,
    Panel,
    Tick,
    draw_band,
    draw_line,
    spread,
)
from gradcheck_cli.report.html.scale import Scale, fit_scale, whole_ticks
from gradcheck_cli.report.html.series_words import SPIKES, acted, describe, joined_note, legend, rows, spike_steps
from gradcheck_cli.report.html.step_columns import Curve, any_of, index_of, join, label_of, place, split_steps

HEIGHT = 190
LOG_FROM = 20.0
"""From such a ratio of the largest to the least on, a loss is drawn on a log scale."""


def series_chart(report: Report, key: str) -> Chart | None:
    """None without anything to draw. More steps than there is room for are joined, and the notes say so."""
    steps = len(report.series)
    if not steps:
        return None
    columns = split_steps(steps)
    loss, norm = join(report.series.loss, columns), join(report.series.grad_norm, columns)
    clipped = join(np.where(acted(report), report.series.grad_norm_clipped, np.nan), columns)
    named, absent = thresholds.within(thresholds.name_thresholds(report), report.series.grad_norm.tolist())
    panels = [loss_panel(report, loss, columns)] if report.run.sees_loss and not np.isnan(loss.middle).all() else []
    if report.trace is None:  # which measures norms only where it looks closer
        panels.append(norm_panel(report, norm, clipped, columns, named))
    if not panels:
        return None
    return Chart(
        key,
        " and ".join(panel.title for panel in panels).capitalize(),
        describe(report),
        panels,
        [Tick(place(step, columns), f"{step:,}") for step in whole_ticks(0, steps - 1, 6)],
        "step",
        legend=legend(report, bool(named)),
        notes=[*joined_note(columns), *thresholds.describe_absent(absent)],
        data={
            "at": spread(len(columns)).round(3).tolist(),
            "labels": [label_of(column) for column in columns],
            "rows": rows(report, columns),
        },
    )


def loss_panel(report: Report, curve: Curve, columns: Sequence[Ints]) -> Panel:
    """Linear, or log where it falls far."""
    low, high = float(np.nanmin(curve.low)), float(np.nanmax(curve.high))
    scale = fit_scale([low, high], log=low > 0 and high / low >= LOG_FROM)
    marks = [*spike_marks(report, "GC202", curve, scale, columns), *bad_marks("the loss", curve, columns)]
    return make_panel("loss", scale, [(curve, "loss")], marks)


def norm_panel(report: Report, curve: Curve, clipped: Curve, columns: Sequence[Ints], named: dict[str, float]) -> Panel:
    """Log scale; below it which steps were skipped, and which clipped."""
    scale = fit_scale([*curve.low.tolist(), *curve.high.tolist(), *clipped.low.tolist(), *named.values()], log=True)
    marks = [*spike_marks(report, "GC201", curve, scale, columns), *bad_marks("the gradient", curve, columns)]
    boxes = [
        *span_boxes(warm_up(report, len(columns)), "left-out", 0, HEIGHT, "left out of the advice"),
        *span_boxes(any_of(report.series.skipped, columns), "skipped", HEIGHT - 6, 6, "skipped"),
        *span_boxes(any_of(acted(report), columns), "clipped", HEIGHT - 6, 6, "clipped"),
    ]
    levels = thresholds.draw_levels(named, scale, HEIGHT, report.clip)
    return make_panel("gradient norm", scale, [(curve, "norm"), (clipped, "after")], marks, levels, boxes)


def make_panel(
    title: str,
    scale: Scale,
    curves: Sequence[tuple[Curve, str]],
    marks: Sequence[Mark],
    levels: Sequence[Level] = (),
    boxes: Sequence[Box] = (),
) -> Panel:
    """Bands behind lines; a column of one step has no band."""
    x = spread(len(curves[0][0].middle))
    bands = [
        Line(draw_band(x, scale.place(curve.low), scale.place(curve.high)), kind, area=True)
        for curve, kind in curves
        if (curve.high > curve.low).any()
    ]
    lines = [Line(draw_line(x, scale.place(curve.middle)), kind) for curve, kind in curves]
    ticks = [Tick(round((1 - share) * HEIGHT, 1), label) for label, share in scale.ticks(5)]
    drawn = [line for line in (*bands, *lines) if line.path]
    return Panel(title, HEIGHT, ticks, drawn, marks, levels, boxes=boxes, scale="log scale" if scale.log else "")


def spike_marks(report: Report, code: str, curve: Curve, scale: Scale, columns: Sequence[Ints]) -> list[Mark]:
    """One on each column in which a rule saw a spike."""
    steps = [step for finding in report.diagnosis.findings if finding.code == code for step in spike_steps(finding)]
    at = {index_of(step, columns): step for step in reversed(steps) if 0 <= step <= columns[-1][-1]}
    return [
        Mark(
            round(place(step, columns), 3),
            round((1 - scale.place_one(curve.high[index])) * HEIGHT, 1),
            "spike",
            f"{SPIKES[code]} at step {step:,} ({code}): {figures.plain(curve.high[index])}",
        )
        for index, step in sorted(at.items())
        if not np.isnan(scale.place_one(curve.high[index]))
    ]


def bad_marks(what: str, curve: Curve, columns: Sequence[Ints]) -> list[Mark]:
    """One at the top of each column in which something was not finite."""
    x = spread(len(columns)).round(3).tolist()
    return [
        Mark(x[index], 8.0, "bad", f"{what} is not finite at {label_of(columns[index])}")
        for index in np.flatnonzero(curve.bad).tolist()
    ]


def span_boxes(flags: Bools, kind: str, top: int, height: int, what: str) -> list[Box]:
    """A box for each run of flags (columns,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int))).reshape(-1, 2).tolist()
    unit = 100 / len(flags)
    return [Box(round(a * unit, 3), round((b - a) * unit, 3), top, height, kind, what) for a, b in edges]


def warm_up(report: Report, cells: int) -> Bools:
    """The columns that the advice leaves out (cells,)."""
    return left_out(report.series, report.clip, cells) if report.clip else np.zeros(cells, dtype=bool)
