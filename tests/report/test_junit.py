"""JUnit XML: valid by Jenkins' schema, and failing where the run fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.records import Finding, NotEvaluated, Report, Severity
from gradcheck_cli.report.junit import render_junit
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.reports import REPORTS, make_report
from tests.report.traces import TRACES

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))
ALL = {**REPORTS, **TRACES, **ADVICES}
OUTCOMES = ("failure", "error", "skipped")


def load(report: Report, view: View | None = None) -> ElementTree.Element:
    """The document, valid."""
    root = ElementTree.fromstring(render_junit(report, view or View()).encode())
    SCHEMA.validate(root)
    return root


def outcomes(report: Report) -> dict[str, str]:
    """How each case ended, by its name."""
    cases = list(load(report).iter("testcase"))
    ended = {case.get("name", ""): next((tag for tag in OUTCOMES if case.find(tag) is not None), "") for case in cases}
    assert len(ended) == len(cases), "names tell cases apart"
    return ended


def found(severity: Severity, code: str = "GC101", layer: str | None = "fc1") -> Finding:
    return Finding(code, f"rule-{code}", severity, "it is sick", "mend it", layer=layer)


def sick(*findings: Finding, **fields: Any) -> Report:
    return make_report(make_recording(steps=2), findings, **fields)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("unicode", [True, False])
def test_documents_are_valid_and_count_right(name: str, unicode: bool) -> None:
    assert unicode or render_junit(ALL[name], View(unicode=False)).isascii()
    for suite in load(ALL[name], View(unicode=unicode)).iter("testsuite"):
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(attribute, "")) == len(suite.findall(f"testcase/{tag}"))


def test_the_schema_refuses_what_is_wrong() -> None:
    assert not SCHEMA.is_valid(ElementTree.fromstring('<testsuites><testsuite name="a"/></testsuites>'))


def test_a_case_for_each_rule_and_place() -> None:
    assert outcomes(REPORTS["sick"]) == {
        "the run": "",
        "GC101 vanishing-gradient [stages.*.*.conv]": "failure",
        "GC103 unused-parameter [aux]": "",
        "GC201 gradient-spike": "skipped",
        "GC306 weight-blowup [stages.2.1.norm]": "",
        "GC306 weight-blowup [stages.3.1.norm]": "",
    }
    assert set(outcomes(TRACES["trace-clean"]).values()) == {""}


def test_a_rule_that_found_something_and_could_not_judge_the_rest() -> None:
    report = make_report(
        make_recording(steps=2), [found(Severity.ERROR)], [NotEvaluated("GC101", "rule-GC101", "no weights in fc2")]
    )
    assert outcomes(report) == {
        "the run": "",
        "GC101 rule-GC101 [fc1]": "failure",
        "GC101 rule-GC101 [not evaluated]": "skipped",
    }


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [("error", {"error"}), ("warning", {"error", "warning"}), ("never", set())],
)
def test_a_case_fails_where_it_fails_the_run(fail_on: str, failing: set[str]) -> None:
    findings = [found(Severity(one), f"GC10{index}") for index, one in enumerate(("error", "warning", "info"))]
    ended = outcomes(replace(sick(*findings, exit_code=0), fail_on=fail_on))
    assert [name for name, how in ended.items() if how == "failure"] == [
        f"{one.code} {one.name} [fc1]" for one in findings if one.severity.value in failing
    ]


def test_warnings_of_one_model_pass_where_errors_of_another_fail_the_run() -> None:
    first, second = sick(found(Severity.WARNING), exit_code=1), sick(found(Severity.ERROR), exit_code=1)
    root = load(replace(first, others=(second,)))
    assert [suite.get("failures") for suite in root] == ["0", "1"]


def test_findings_with_one_fingerprint_share_a_case() -> None:
    report = sick(*(replace(found(Severity.ERROR), step=step, message=f"at {step}") for step in (1, 2)))
    assert list(outcomes(report)) == ["the run", "GC101 rule-GC101 [fc1]"]
    text = load(report).findtext(".//failure") or ""
    assert "at 1" in text
    assert "at 2" in text


def test_a_failed_run_is_an_error() -> None:
    assert outcomes(REPORTS["failed"])["the run"] == "error"
    assert (load(REPORTS["failed"]).findtext(".//error") or "").endswith("ValueError: bad [batch]")


def test_known_and_accepted_findings_pass_with_a_note() -> None:
    ended = outcomes(REPORTS["baseline-kept"])
    assert "failure" not in ended.values()
    notes = [case.text or "" for case in load(REPORTS["baseline-kept"]).iter("system-out")]
    assert notes[0].startswith("known in the baseline gradcheck-baseline.json\n")
    assert any(note.startswith("accepted in the baseline gradcheck-baseline.json: kept for export\n") for note in notes)
    (by_chance,) = (case for case in load(REPORTS["baseline"]).iter("testcase") if "GC107" in case.get("name", ""))
    assert "another seed could bring it about" in (by_chance.findtext("system-out") or "")
    failed = [name for name, how in outcomes(REPORTS["baseline"]).items() if how == "failure"]
    assert failed == ["GC101 vanishing-gradient [stages.*.*.conv]"]


names = st.text(st.sampled_from("<>&\"']]>\x00\x0b\x1b\n\r\t\ud800\ufffe\uffff\u202e-") | st.characters())


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("<>&\"']]>\x00\x0b\x1b\n\r\t\ud800\ufffe\uffff\u202e-") | st.characters()),
    unicode=st.booleans(),
)
def test_any_name_is_told_visibly(text: str, unicode: bool) -> None:
    report = sick(replace(found(Severity.ERROR, layer=f"a{text}"), message=text, hint=text), error=text)
    report = replace(report, run=replace(report.run, target=f"t{text}"))
    view = View(unicode=unicode)
    root = load(report, view)
    names = [case.get("name") for case in root.iter("testcase")]
    assert f"GC101 rule-GC101 [{view.name(f'a{text}')}]" in names
    assert {case.get("classname") for case in root.iter("testcase")} == {view.name(f"profile t{text}")}
