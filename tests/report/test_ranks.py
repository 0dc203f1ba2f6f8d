"""What a report says of the ranks of a distributed run: true to the record, legible, and nothing without ranks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from gradcheck_cli import judgement
from gradcheck_cli.archive import dumps, loads
from gradcheck_cli.config import Settings
from gradcheck_cli.ranks import PER_STEP, Ranks
from gradcheck_cli.records import Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.formats import render
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import NanTrace
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.pages import Element, data_of, make_page
from tests.report.rank_runs import RANKS, STEPS, make_ranks, ranks_report
from tests.report.reports import REPORTS
from tests.report.traces import TRACES

pytest.importorskip("jinja2")

NAN = float("nan")
LINE = "4 (ddp, gloo) on node7, node8"
every_report = pytest.mark.parametrize("name", RANKS)


def table(report: Report, **view: Any) -> str:
    return str(render(report, "table", View(**{"width": 120, **view})))


def rows(output: str) -> dict[int, list[str]]:
    """The cells behind each rank in the table, its host first."""
    _, _, below = output.partition("ranks (medians")
    return {int(line.split()[0]): line.split()[1:] for line in below.splitlines() if re.match(r" *\d+  \S", line)}


def group(size: int, **members: Any) -> Report:
    return ranks_report(make_ranks([f"node{rank // 8}" for rank in range(size)], **members))


def ranks_of(report: Report) -> Ranks:
    assert report.ranks is not None
    return report.ranks


@every_report
@pytest.mark.parametrize("width", [40, 60, 80, 140])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_view(name: str, width: int, unicode: bool) -> None:
    for line in table(RANKS[name], width=width, unicode=unicode, all_layers=True).splitlines():
        assert cell_len(line) <= width, line


@every_report
def test_colour_adds_only_colour_and_ascii_is_ascii(name: str) -> None:
    assert re.sub(r"\x1b\[[0-9;]*m", "", table(RANKS[name], color=True)) == table(RANKS[name])
    assert table(RANKS[name], unicode=False).isascii()


def test_figures_are_the_medians_of_what_was_finite() -> None:
    ranks = ranks_of(RANKS["ranks"])
    shown = rows(table(RANKS["ranks"]))
    for rank, host in enumerate(ranks.hosts):
        assert shown[rank] == [
            host,
            figures.plain(np.nanmedian(ranks.grad_norm[:, rank])),
            figures.plain(np.median(ranks.loss[:, rank])),
            figures.plain(np.median(ranks.own_seconds[:, rank])),
            figures.percent(float(np.median(ranks.own_seconds[:, rank] / ranks.seconds[:, rank]))),
            f"{ranks.nonfinite[:, rank].sum():,.0f}",
            f"{rank}–{rank + 4 * (STEPS - 1)}",
        ]


def test_what_was_not_measured_has_no_column_and_what_was_never_finite_is_nan() -> None:
    unknown = group(2, grad_norm=np.full((STEPS, 2), NAN), nonfinite=np.full((STEPS, 2), NAN))
    assert [len(cells) for cells in rows(table(unknown)).values()] == [5, 5]
    spoiled = group(2, grad_norm=np.full((STEPS, 2), NAN), nonfinite=np.tile([0.0, 7.0], (STEPS, 1)))
    shown = rows(table(spoiled))
    assert (shown[0][1], shown[1][1], shown[1][-2]) == ("–", "nan", "42")
    lost = group(2, loss=np.tile([2.0, NAN], (STEPS, 1)))
    assert [cells[2] for cells in rows(table(lost)).values()] == ["2", "nan"]
    nothing = group(2, steps=0, batch=np.zeros((0, 2), dtype=np.int64), checked=())
    assert rows(table(nothing)) == {0: ["node0"], 1: ["node0"]}


def test_eight_ranks_are_shown_and_of_more_those_that_stand_out() -> None:
    assert list(rows(table(group(8)))) == list(range(8))
    assert "left out" not in table(group(8))
    many = table(RANKS["ranks-many"])
    assert len(rows(many)) == 8
    assert 41 in rows(many)
    assert "56 of 64 ranks are left out" in many
    everyone = table(RANKS["ranks-many"], all_layers=True)
    assert list(rows(everyone)) == list(range(64))
    assert "left out" not in everyone


def test_a_machine_whose_name_finds_no_room_stands_above_its_ranks() -> None:
    ranks, above = ranks_of(RANKS["ranks-many"]), ""
    wide = rows(table(RANKS["ranks-many"]))
    for line in table(RANKS["ranks-many"], width=80).partition("ranks (medians")[2].splitlines():
        above = line if line.startswith("trainer") else above
        if row := re.match(r" *(\d+) +[\d.]+ ", line):
            rank = int(row[1])
            assert above == ranks.hosts[rank]
            assert line.split()[1:] == wide.pop(rank)[1:]
    assert not wide


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_largest_and_the_smallest_of_each_figure_are_among_those_shown(data: st.DataObject) -> None:
    size = data.draw(st.integers(9, 30))
    orders = [np.array(data.draw(st.permutations(range(1, size + 1))), dtype=float) for _ in range(3)]
    loss, grad_norm, own_seconds = (np.tile(order, (STEPS, 1)) for order in orders)
    bad = data.draw(st.integers(0, size - 1))
    nonfinite = np.zeros((STEPS, size))
    nonfinite[-1, bad] = 1
    report = group(size, loss=loss, grad_norm=grad_norm, own_seconds=own_seconds, nonfinite=nonfinite)
    shown = rows(table(report))
    assert len(shown) == 8
    assert bad in shown
    for order in orders:
        assert {int(order.argmax()), int(order.argmin())} <= set(shown)


def test_the_names_of_hosts_are_nothing_but_text() -> None:
    report = RANKS["ranks-hostile"]
    for text in (table(report, color=True), str(render(report, "markdown"))):
        assert "\x1b[2J" not in text
        assert "\x07" not in text
    for width in (80, 200):
        assert re.search(r"^(0  )?\[red\]node\[/red\]( |$)", table(report, width=width), re.MULTILINE)
    assert [cell.text for cell in rank_cells(report, "td", class_="name")][:2] == [
        "[red]node[/red]",
        r"evil\x1b[2Jhost\x07",
    ]


def test_every_command_names_the_ranks_and_only_a_profile_lists_them() -> None:
    ranks = ranks_of(RANKS["ranks"])
    others = [
        replace(TRACES["trace-backward"], ranks=ranks),
        replace(ADVICES["clip-needed"], ranks=ranks),
        replace(RANKS["ranks"], command="audit", layers=()),
    ]
    for report in [RANKS["ranks"], *others]:
        assert LINE in " ".join(table(report).split())
        assert LINE in str(render(report, "markdown"))
        assert LINE in make_page(report).text
    for report in others:
        assert not rows(table(report))
        assert "node8`" not in str(render(report, "markdown"))
        assert not rank_cells(report, "tr", class_="rank")


def test_header_names_some_of_many_machines_and_how_they_synchronise() -> None:
    ranks = make_ranks([f"n{rank}" for rank in range(6)], strategy="own", backend="nccl")
    assert "6 (synchronised by the model, nccl) on n0, n1, n2, n3 and 2 more" in table(ranks_report(ranks))
    assert "2 (not synchronised, gloo) on node0\n" in table(group(2, strategy="none"), width=80)


def test_without_ranks_nothing_is_said_of_them() -> None:
    for name in ("table", "markdown", "html"):
        assert "rank " not in str(render(REPORTS["clean"], name)).partition("<script")[0]
    assert json.loads(str(render(REPORTS["clean"], "json")))["ranks"] is None


def test_json_has_every_number_of_every_rank() -> None:
    ranks = ranks_of(RANKS["ranks"])
    document = json.loads(str(render(RANKS["ranks"], "json")))["ranks"]
    assert [entry["host"] for entry in document["entries"]] == list(ranks.hosts)
    for rank, entry in enumerate(document["entries"]):
        assert (entry["rank"], entry["batches"]) == (rank, [rank, rank + 20])
        for name in PER_STEP:
            expected = getattr(ranks, name)[:, rank]
            np.testing.assert_array_equal(np.array(entry["series"][name], dtype=expected.dtype), expected)
    assert document["entries"][2]["series"]["grad_norm"][4] == "NaN"
    assert (document["entries"][2]["nonfinite"], document["entries"][3]["own_share"]) == (
        1290,
        pytest.approx(0.8, 0.05),
    )
    assert document["unused"] == [{"parameter": "fc2.bias", "step": 1, "steps": 2, "ranks": [0, 3]}]
    assert document["desyncs"] == [{"name": "norm.running_mean", "is_buffer": True, "step": 5, "ranks": [1, 2, 3]}]
    many = json.loads(str(render(RANKS["ranks-many"], "json")))["ranks"]
    assert (many["size"], len(many["entries"]), many["sync_seconds"]) == (64, 64, "NaN")
    assert many["entries"][9]["grad_norm"] == "NaN"


def rank_cells(report: Report, tag: str, **attributes: str) -> list[Element]:
    return [
        cell for part in make_page(report).all("section", id="m0-rank-table") for cell in part.all(tag, **attributes)
    ]


def test_page_has_the_rows_of_the_table_and_a_line_for_each() -> None:
    cells = [
        [cell.text for cell in row.children if isinstance(cell, Element)]
        for row in rank_cells(RANKS["ranks"], "tr", class_="rank")
    ]
    assert {int(rank): figures for rank, *figures in cells} == rows(table(RANKS["ranks"]))
    page = make_page(RANKS["ranks"])
    chart = data_of(page)["m0-ranks"]
    for rank, row in enumerate(chart["rows"]):
        norms = ranks_of(RANKS["ranks"]).grad_norm[:, rank]
        assert (row["name"], row["values"]) == (f"rank {rank}", [figures.plain(norm) for norm in norms])
    (section,) = page.all("section", id="m0-ranks")
    for index in range(4):
        assert len(section.all("path", class_=f"line rank-{index}")) == 2  # one in the plot, one in the legend
    assert len(section.all("use", class_="mark bad")) == 2
    assert "8 of 64 ranks" in make_page(RANKS["ranks-many"]).all("figcaption", id="m0-ranks-description")[0].text


def test_page_draws_nothing_where_no_gradient_was_measured() -> None:
    page = make_page(group(2, grad_norm=np.full((STEPS, 2), NAN)))
    assert "m0-ranks" not in data_of(page)
    assert page.all("section", id="m0-rank-table")


def test_a_saved_recording_gives_the_same_report_as_a_fresh_one() -> None:
    recording = replace(make_recording(steps=STEPS), ranks=ranks_of(RANKS["ranks"]))
    fresh, saved = (judgement.make_report("profile", one, Settings()) for one in (recording, loads(dumps(recording))))
    assert rows(table(fresh)) == rows(table(RANKS["ranks"]))
    for name in ("table", "json", "markdown"):
        assert render(fresh, name) == render(saved, name)


def test_judging_hands_the_ranks_on() -> None:
    recording = replace(make_recording(steps=STEPS), ranks=ranks_of(RANKS["ranks"]))
    trace = NanTrace(STEPS, -1, (), ())
    made = [
        judgement.make_audit_report(recording, Settings()),
        judgement.make_clip_report(recording, Settings()),
        judgement.make_trace_report(recording.run, recording.series, trace, Settings(), ranks=recording.ranks),
    ]
    for report in made:
        assert LINE in " ".join(table(report).split())
