"""The gradient norm of each rank over the steps, before the ranks were synchronised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import Ints
from gradcheck_cli.report.figures import plural
from gradcheck_cli.report.html.drawing import Chart, Line, Mark, Panel, Tick, draw_line, spread
from gradcheck_cli.report.html.scale import fit_scale, whole_ticks
from gradcheck_cli.report.html.series_chart import HEIGHT
from gradcheck_cli.report.html.step_columns import Curve, any_of, join, label_of, place, split_steps, tell
from gradcheck_cli.report.rank_rows import RankRow, choose_rows, make_rows
from gradcheck_cli.report.view import View


def rank_chart(ranks: Ranks | None, key: str) -> Chart | None:
    """A line for each rank, of many for those that stand out; None where no gradient was measured."""
    if ranks is None or not np.isfinite(ranks.grad_norm).any():
        return None
    shown = choose_rows(make_rows(ranks), View())
    columns = split_steps(len(ranks.grad_norm))
    marks = list(bad_marks(ranks, shown, columns))
    curves = {f"rank-{index}": join(ranks.grad_norm[:, row.rank], columns) for index, row in enumerate(shown)}
    return Chart(
        key,
        "Gradient norm of each rank",
        describe(ranks, shown),
        [norm_panel(curves, marks)],
        [Tick(place(step, columns), f"{step:,}") for step in whole_ticks(0, len(ranks.grad_norm) - 1, 6)],
        "step",
        legend=[
            *((kind, f"rank {row.rank} on {row.host}") for kind, row in zip(curves, shown, strict=True)),
            *([("bad", "not finite")] if marks else []),
        ],
        notes=notes(columns),
        data={
            "at": spread(len(columns)).round(3).tolist(),
            "labels": [label_of(column) for column in columns],
            "rows": [tell_row(ranks, row, columns) for row in shown],
        },
    )


def bad_marks(ranks: Ranks, shown: Sequence[RankRow], columns: Sequence[Ints]) -> Iterator[Mark]:
    """One at the top of each column in which a rank's gradient was not finite."""
    x = spread(len(columns)).round(3).tolist()
    for row in shown:
        bad = any_of(ranks.nonfinite[:, row.rank] > 0, columns)
        for index in np.flatnonzero(bad).tolist():
            title = f"the gradient of rank {row.rank} is not finite at {label_of(columns[index])}"
            yield Mark(x[index], 8.0, "bad", title)


def norm_panel(curves: Mapping[str, Curve], marks: Sequence[Mark]) -> Panel:
    """On a log scale; what is not finite leaves a gap."""
    scale = fit_scale([value for curve in curves.values() for value in curve.middle.tolist()], log=True)
    x = spread(len(next(iter(curves.values())).middle))
    lines = [Line(draw_line(x, scale.place(curve.middle)), kind) for kind, curve in curves.items()]
    ticks = [Tick(round((1 - share) * HEIGHT, 1), label) for label, share in scale.ticks(5)]
    return Panel("gradient norm", HEIGHT, ticks, [line for line in lines if line.path], marks, scale="log scale")


def describe(ranks: Ranks, shown: Sequence[RankRow]) -> str:
    """For those who do not see it."""
    of = f" of {ranks.size:,}" if len(shown) < ranks.size else ""
    which = ", those with the largest and the smallest figures" if of else ""
    return f"{len(shown)}{of} ranks{which}, each by itself: its gradient before it was synchronised."


def notes(columns: Sequence[Ints]) -> list[str]:
    """That a column stands for several steps, where it does."""
    most = max(len(column) for column in columns)
    return [f"each point stands for the median of up to {plural(most, 'step')}"] if most > 1 else []


def tell_row(ranks: Ranks, row: RankRow, columns: Sequence[Ints]) -> dict[str, object]:
    """What is told of a column."""
    return {"name": f"rank {row.rank}", "values": [tell(ranks.grad_norm[column, row.rank]) for column in columns]}
