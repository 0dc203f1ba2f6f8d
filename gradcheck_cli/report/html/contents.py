"""What the page shows of one report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradcheck_cli.records import Report
from gradcheck_cli.report import clip_answer, figures, header, nan_trace, verdict
from gradcheck_cli.report import trace_wording as wording
from gradcheck_cli.report.clip import unknown
from gradcheck_cli.report.comparison import entries
from gradcheck_cli.report.html.clip_view import ClipView, clip_view
from gradcheck_cli.report.html.drawing import Chart
from gradcheck_cli.report.html.finding_cards import CardGroup, make_cards
from gradcheck_cli.report.html.flow_chart import flow_chart
from gradcheck_cli.report.html.heat_map import heat_map
from gradcheck_cli.report.html.layer_rows import LayerTable, make_table
from gradcheck_cli.report.html.norm_histogram import norm_histogram
from gradcheck_cli.report.html.operation_rows import OperationTable, make_operations
from gradcheck_cli.report.html.rank_chart import rank_chart
from gradcheck_cli.report.html.rank_rows import RankTable, make_rank_table
from gradcheck_cli.report.html.series_chart import series_chart
from gradcheck_cli.report.html.trace_path import OriginView, origin_view
from gradcheck_cli.report.lines import SYMBOLS
from gradcheck_cli.report.rank_rows import ranks_to_show
from gradcheck_cli.report.view import View

if TYPE_CHECKING:
    from gradcheck_cli.tape import NanTrace


@dataclass(frozen=True)
class Verdict:
    """Sign, style (error, warning, info or ok) and sentence."""

    sign: str
    style: str
    sentence: str


@dataclass(frozen=True)
class Contents:
    """`prefix` makes the anchors of one report different from those of another on the same page; `heading` is the
    anchor of the model's own heading, with a blank before it, or "" where there is one model only.
    """

    report: Report
    prefix: str
    heading: str
    name: str
    verdicts: Sequence[Verdict]
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    groups: Sequence[CardGroup]
    severities: Sequence[tuple[str, str, int]]
    origins: Sequence[OriginView]
    unexplained: Sequence[tuple[str, Sequence[str]]]
    operations: OperationTable | None
    clip: ClipView | None
    charts: Sequence[Chart]
    table: LayerTable | None
    ranks: RankTable | None
    comparison: Sequence[tuple[str, Sequence[str]]]


def make_contents(report: Report, prefix: str, several: bool, view: View) -> Contents:
    """Everything of one report, except for `others`."""
    trace, clip = report.trace, report.clip
    tally = [sum(one.severity.value == name for one in report.diagnosis.findings) for name in SEVERITIES]
    return Contents(
        report,
        prefix,
        f" {prefix}name" if several else "",
        report.run.model or report.run.target,
        [Verdict(*parts) for parts in judge(report)],
        [*facts(report)],
        [*notes(report)],
        make_cards(report, prefix),
        [(name, SYMBOLS[name], number) for name, number in zip(SEVERITIES, tally, strict=True) if number],
        [origin_view(one, trace, origin_title(report, trace, i)) for i, one in enumerate(trace.origins)]
        if trace
        else (),
        [*unexplained(trace)] if trace else (),
        make_operations(trace) if trace and view.all_ops else None,
        clip_view(report, clip) if clip else None,
        [*charts(report, prefix)],
        make_table(report.layers, view),
        make_rank_table(ranks_to_show(report), view),
        [(label, lines) for label, lines in entries(report) if lines] if report.comparison else (),
    )


SEVERITIES = ("error", "warning", "info")


def judge(report: Report) -> Iterator[tuple[str, str, str]]:
    """The verdict of the command."""
    if report.clip is not None:
        yield (*clip_answer.SIGNS[report.clip.verdict], clip_answer.conclude(report.clip))
        if report.error or report.run.ended == "failed":
            yield SYMBOLS["error"], "error", f"the run failed after {figures.plural(len(report.series), 'step')}"
        yield from verdict.since_baseline(report)
    elif report.trace is not None:
        yield from judge_trace(report, report.trace)
    else:
        yield verdict.judge(report)


def judge_trace(report: Report, trace: NanTrace) -> Iterator[tuple[str, str, str]]:
    """What happened first, then what else there is to know."""
    if trace.origins:
        yield SYMBOLS["error"], "error", origin_title(report, trace, 0)
    elif not trace.clean:
        event = wording.describe_unexplained(trace)
        yield SYMBOLS["error"], "error", f"step {trace.step}: {event}"
    yield from nan_trace.judge(report, trace)


def origin_title(report: Report, trace: NanTrace, index: int) -> str:
    """`step 37: the gradient became NaN in backward`."""
    return nan_trace.describe_title(report, trace, index)


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """How it was run, and how it went."""
    left_out = unknown(report) if report.clip else {"steps", "gradient norm", "overhead"} if report.trace else set()
    if report.trace:
        yield "steps", nan_trace.describe_steps(report, report.trace)
    yield from ((label, value) for label, value in header.facts(report) if label not in left_out)


def notes(report: Report) -> Iterator[str]:
    """How the run ended, if not as asked for, and what there is to know about it."""
    if report.trace is None:
        yield from header.ending(report)
        return
    yield from report.run.notes
    if report.run.ended == "interrupted":
        yield "the run was interrupted"
    if report.trace.reproduced:
        yield from report.trace.notes


def origins(report: Report, trace: NanTrace) -> Iterator[OriginView]:
    """Each with its path."""
    for index, origin in enumerate(trace.origins):
        yield origin_view(origin, trace, origin_title(report, trace, index))


def unexplained(trace: NanTrace) -> Iterator[tuple[str, Sequence[str]]]:
    """What was seen where no origin was found, and what may have been different in the replay."""
    if trace.clean or trace.origins:
        return
    sinks = [wording.describe_sink(sink) for sink in trace.sinks]
    rows: Iterable[tuple[str, Sequence[str]]] = (
        ("seen", sinks),
        ("error", trace.error.splitlines()),
        ("perhaps", () if trace.reproduced else trace.notes or (nan_trace.USUAL_REASONS,)),
        ("try", () if trace.reproduced else (nan_trace.ADVICE,)),
    )
    yield from ((label, lines) for label, lines in rows if lines)


def charts(report: Report, prefix: str) -> Iterator[Chart]:
    """Those for which there is something to draw."""
    made = (
        flow_chart(report.layers, f"{prefix}flow"),
        heat_map(report, f"{prefix}heat"),
        series_chart(report, f"{prefix}series"),
        norm_histogram(report, f"{prefix}norms") if report.trace is None else None,
        rank_chart(ranks_to_show(report), f"{prefix}ranks"),
    )
    yield from (chart for chart in made if chart is not None)
