"""What each rank of a distributed run saw by itself, in a row of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from gradcheck_cli.ranks import Ranks
from gradcheck_cli.records import Floats, Ints, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.columns import Column
from gradcheck_cli.report.lines import styled
from gradcheck_cli.report.view import View

SHOWN_RANKS = 8
SHOWN_HOSTS = 4
FIGURES = "medians over the steps; gradients before they were synchronised"
TITLE = f"ranks ({FIGURES})"
STRATEGIES = {"none": "not synchronised", "own": "synchronised by the model"}
MEASURES = ("nonfinite", "grad_norm", "own_seconds", "loss")


@dataclass(frozen=True)
class RankRow:
    """One rank's own figures: medians of the finite values over the steps, NaN where there are none.

    `grad_norm` is that of its gradient before it was synchronised, `own_seconds` what it took for its data and its
    forward pass, `own_share` the share of the step that this is. `nonfinite` counts the elements of its gradients in
    all steps. `batches` are the least and the largest index of a batch within an epoch, None where it is not known.
    """

    rank: int
    host: str
    grad_norm: float
    loss: float
    own_seconds: float
    own_share: float
    nonfinite: float
    batches: tuple[int, int] | None


def describe_ranks(ranks: Ranks) -> str:
    """`4 (ddp, gloo) on node7, node8`."""
    hosts = list(dict.fromkeys(ranks.hosts))
    more = [f"{len(hosts) - SHOWN_HOSTS} more"] if len(hosts) > SHOWN_HOSTS else []
    how = ", ".join(filter(None, (STRATEGIES.get(ranks.strategy, ranks.strategy), ranks.backend)))
    named = ", ".join(hosts[:SHOWN_HOSTS]) + "".join(f" and {number}" for number in more)
    return f"{ranks.size} ({how}) on {named}"


def ranks_to_show(report: Report) -> Ranks | None:
    """Those of a profile; the other commands only name them."""
    return report.ranks if report.command == "profile" else None


def make_rows(ranks: Ranks) -> list[RankRow]:
    """A row a rank, in their order."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = ranks.own_seconds / ranks.seconds
    return [
        RankRow(
            rank,
            host,
            grad_norm=median(ranks.grad_norm[:, rank]),
            loss=median(ranks.loss[:, rank]),
            own_seconds=median(ranks.own_seconds[:, rank]),
            own_share=median(shares[:, rank]),
            nonfinite=count(ranks.nonfinite[:, rank]),
            batches=span(ranks.batch[:, rank]),
        )
        for rank, host in enumerate(ranks.hosts)
    ]


def median(values: Floats) -> float:
    """Of the finite values (steps,); NaN without any."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def count(values: Floats) -> float:
    """The sum of what was counted (steps,); NaN where nothing was."""
    known = values[~np.isnan(values)]
    return float(known.sum()) if len(known) else float("nan")


def span(indices: Ints) -> tuple[int, int] | None:
    """The least and the largest index (steps,); None where they are not known."""
    known = indices[indices >= 0]
    return (int(known.min()), int(known.max())) if len(known) else None


def choose_rows(rows: Sequence[RankRow], view: View) -> list[RankRow]:
    """All where they are few or all are wanted, else those at the extremes of their figures; in the order of ranks."""
    if view.all_layers or len(rows) <= SHOWN_RANKS:
        return list(rows)
    outermost = [rank for tier in zip(*rankings(rows), strict=True) for rank in tier]
    kept = list(dict.fromkeys([*outermost, *range(len(rows))]))[:SHOWN_RANKS]
    return [rows[rank] for rank in sorted(kept)]


def rankings(rows: Sequence[RankRow]) -> Iterator[list[int]]:
    """The ranks by each figure in which they differ, from either end; what is not known comes last."""
    for measure in MEASURES:
        values = np.array([getattr(row, measure) for row in rows])
        known = values[~np.isnan(values)]
        if len(known) and known.min() < known.max():
            yield np.argsort(-values, kind="stable").tolist()
            yield np.argsort(values, kind="stable").tolist()


def describe_left_out(rows: Sequence[RankRow], shown: Sequence[RankRow]) -> list[str]:
    """That some ranks are not shown, and which are."""
    number = len(rows) - len(shown)
    if not number:
        return []
    which = "shown are those with the largest and the smallest figures"
    return [f"{number:,} of {len(rows):,} ranks are left out: {which} (--all shows every rank)"]


def make_columns(rows: Sequence[RankRow], view: View) -> list[Column]:
    """All but the rank and its host."""

    def column(upper: str, lower: str, rank: int, show: Callable[[RankRow], str]) -> Column:
        return Column((upper, lower), rank, tuple(styled(view.prose(show(row))) for row in rows))

    sees_loss = not all(np.isnan(row.loss) for row in rows)
    bad = tuple(nonfinite_cell(row, view) for row in rows)
    return [
        column("gradient", "norm", 0, describe_norm),
        column("", "loss", 3, lambda row: figures.plain(row.loss) if sees_loss else "–"),
        column("data + forward", "seconds", 0, lambda row: known(row.own_seconds)),
        column("% of", "step", 4, lambda row: figures.percent(row.own_share)),
        Column(("non-finite", "elements"), 2, bad),
        column("", "batches", 5, describe_batches),
    ]


def known(value: float) -> str:
    """Three digits, if there is a value."""
    return "–" if np.isnan(value) else figures.plain(value)


def describe_norm(row: RankRow) -> str:
    """The norm; nan where there were gradients, and none was finite."""
    return "nan" if np.isnan(row.grad_norm) and row.nonfinite > 0 else known(row.grad_norm)


def nonfinite_cell(row: RankRow, view: View) -> Text:
    """How many elements; any at all stand out."""
    content = "–" if np.isnan(row.nonfinite) else f"{row.nonfinite:,.0f}"
    return styled(view.prose(content), "warning" if row.nonfinite > 0 else "")


def describe_batches(row: RankRow) -> str:
    """`0–30`."""
    if row.batches is None:
        return "–"
    low, high = row.batches
    return str(low) if low == high else f"{low}–{high}"
