"""What a table, and a sentence, say of a baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradcheck_cli.comparison import Comparison
from gradcheck_cli.records import Report
from gradcheck_cli.report.outcome import outcome
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View
from tests.report.advices import ADVICES
from tests.report.reports import REPORTS
from tests.report.traces import TRACES

ALL = {**REPORTS, **TRACES, **ADVICES}


def show(report: Report) -> str:
    return render_table(report, View(width=160))


def section(report: Report) -> list[str]:
    """The lines below "since the baseline"."""
    return show(report).partition("since the baseline")[2].partition("\n\n")[0].splitlines()[1:]


def test_without_a_baseline_nothing_is_said_of_one() -> None:
    assert "baseline" not in show(REPORTS["sick"])


def test_titles_say_what_a_finding_is() -> None:
    titles = [line for line in show(REPORTS["baseline"]).splitlines() if line[:2] in ("✗ ", "▲ ", "• ")]
    assert titles[:5] == [
        "✗ new error  GC101 vanishing-gradient  stages.*.*.conv",
        "▲ uncertain warning  GC107 large-gradient  head",
        "▲ known warning  GC306 weight-blowup  stages.2.1.norm",
        "▲ new warning  GC306 weight-blowup  stages.3.1.norm",
        "• accepted info  GC103 unused-parameter  aux",
    ]


def test_a_row_for_each_thing_that_changed_and_none_for_the_others() -> None:
    labels = [line[2:13].strip() for line in section(REPORTS["baseline"]) if line[2:13].strip()]
    assert labels == [
        "new",
        "known",
        "accepted",
        "uncertain",
        "gone",
        "better",
        "renamed",
        "added",
        "removed",
        "left out",
    ]
    lines = section(replace(REPORTS["sick"], comparison=Comparison("b.json", gone=("GC105:neck",))))
    assert [line.split() for line in lines if "new" not in line and "known" not in line] == [["gone", "GC105", "neck"]]


def test_long_lists_are_cut_and_say_so() -> None:
    comparison = Comparison("b.json", gone=tuple(f"GC103:fc{number}" for number in range(30)))
    text = show(replace(REPORTS["clean"], comparison=comparison))
    assert "GC103 fc11" in text
    assert "GC103 fc12" not in text
    assert "and 18 more" in text


@pytest.mark.parametrize(
    ("name", "sign", "words"),
    [
        (
            "baseline",
            "✗",
            "1 new error, 1 new warning in 18 layers over 8 of 50 steps (1 known, 1 accepted, 1 uncertain",
        ),
        ("baseline-kept", "✓", "nothing new in 18 layers over 8 of 50 steps since the baseline (3 known, 1 accepted"),
        ("clip-baseline", "✗", "1 new warning since the baseline (1 known)"),
        ("trace-baseline", "✗", "1 new error since the baseline (1 known)"),
        ("trace-baseline-kept", "✓", "nothing new since the baseline (1 accepted)"),
    ],
)
def test_the_verdict_judges_what_is_new(name: str, sign: str, words: str) -> None:
    assert outcome(ALL[name])[0] == sign
    assert words in outcome(ALL[name])[1]
    assert words in " ".join(show(ALL[name]).split())


def test_a_failed_run_is_a_failed_run_whatever_was_known() -> None:
    sign, sentence = outcome(replace(REPORTS["baseline-kept"], error="it broke", exit_code=2))
    assert (sign, sentence) == ("✗", "the run failed after 8 of 50 steps: no error or warning up to then")


def test_known_findings_do_not_count_as_left_out_by_an_option() -> None:
    assert "leaves this out" in show(replace(TRACES["trace-backward"], exit_code=0))
    assert "leaves this out" not in show(TRACES["trace-baseline-kept"])
