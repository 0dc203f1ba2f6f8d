"""The JSON document: valid by its schema, readable by strict parsers, complete."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli import __version__
from gradcheck_cli.records import Finding, Report, Severity
from gradcheck_cli.report.json_document import render_json
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.rank_runs import RANKS
from tests.report.reports import REPORTS, make_report
from tests.report.traces import TRACES

SCHEMA = json.loads(files("gradcheck_cli.report").joinpath("schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ALL = {**REPORTS, **TRACES, **ADVICES, **RANKS}
DOCS = Path(__file__).parents[2] / "docs" / "json.md"

reports = pytest.mark.parametrize("name", REPORTS)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def load(report: Report) -> Any:
    """The document as a strict parser reads it."""
    return json.loads(render_json(report, View()), parse_constant=refuse)


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", ALL)
def test_documents_are_valid(name: str) -> None:
    VALIDATOR.validate(load(ALL[name]))


def test_a_run_without_a_step_is_valid() -> None:
    VALIDATOR.validate(load(make_report(make_recording(steps=0), error="it broke", exit_code=2)))


@pytest.mark.parametrize("change", [{"extra": 1}, {"exit_code": 3}, {"series": {}}, {"layers": [{"name": "fc"}]}])
def test_schema_refuses_what_is_wrong(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(load(REPORTS["sick"]) | change)


@reports
def test_text_is_indented_ascii_with_a_newline_at_its_end(name: str) -> None:
    text = render_json(REPORTS[name], View())
    assert text.isascii()
    assert text.endswith("}\n")
    assert text.startswith('{\n  "format_version": 1,\n')


def test_members_are_in_the_order_of_the_schema() -> None:
    assert list(load(REPORTS["clean"])) == list(SCHEMA["properties"])


def test_nan_and_the_infinities_are_strings() -> None:
    document = load(REPORTS["non_finite"])
    assert document["series"]["loss"] == [2.3, 2.1, "Infinity", "NaN"]
    assert document["findings"][0]["evidence"] == {"first": "NaN", "largest": "Infinity", "least": "-Infinity"}


@reports
def test_series_and_layers_are_those_of_the_report(name: str) -> None:
    report, document = REPORTS[name], load(REPORTS[name])
    for member, values in document["series"].items():
        expected = getattr(report.series, member)
        np.testing.assert_array_equal(np.array(values, dtype=expected.dtype).reshape(expected.shape), expected)
    assert [layer["name"] for layer in document["layers"]] == [layer.name for layer in report.layers]
    for layer, summary in zip(document["layers"], report.layers, strict=True):
        np.testing.assert_equal(float(layer["grad_rms"]), summary.grad_rms)


def test_document_says_what_the_report_says() -> None:
    document = load(REPORTS["sick"])
    assert document["tool"] == {"name": "gradcheck", "version": __version__}
    assert document["parameters"] == {"total": 18890, "trainable": 16586}
    assert document["run"]["steps"] == 8
    assert document["run"]["steps_requested"] == 50
    assert document["environment"]["versions"]["torch"] == "2.13.0"
    assert document["exit_code"] == 1
    assert document["error"] is None
    assert {rule["code"]: rule["summary"] for rule in document["rules"]}["GC101"] == (
        "Something about vanishing-gradient."
    )
    assert document["not_evaluated"] == [{"code": "GC201", "name": "gradient-spike", "reason": "needs 20 steps"}]
    vanishing = next(finding for finding in document["findings"] if finding["code"] == "GC101")
    assert vanishing["severity"] == "error"
    assert vanishing["location"] == {"file": "models/cnn.py", "line": 34}
    assert load(REPORTS["failed"])["error"].endswith("ValueError: bad [batch]")


def test_a_trace_has_its_origins_and_a_profile_has_none() -> None:
    document = load(TRACES["trace-backward"])
    (origin,) = document["origins"]
    assert {name: origin[name] for name in ("step", "phase", "kind", "op", "autograd_node", "cause", "verified")} == {
        "step": 37,
        "phase": "backward",
        "kind": "nan",
        "op": "aten::sqrt",
        "autograd_node": "SqrtBackward0",
        "cause": "sqrt-at-zero",
        "verified": True,
    }
    assert (origin["file"], origin["line"]) == ("models/norm.py", 42)
    assert (origin["samples"], origin["spread"]) == ([5, 12], {"reached": 31, "parameters": 148})
    assert origin["input_stats"][0]["argument"] == "self"
    assert origin["input_stats"][0]["state"]["zeros"] == 12
    assert document["trace"]["step"] == 37
    assert load(TRACES["trace-clean"])["trace"]["step"] is None
    assert load(TRACES["trace-not-reproduced"])["trace"]["reproduced"] is False
    assert load(TRACES["trace-raised"])["trace"]["error"].startswith("ValueError: ")
    assert (load(REPORTS["sick"])["trace"], load(REPORTS["sick"])["origins"]) == (None, [])


def test_advice_is_there_in_full_but_for_its_norms() -> None:
    document, advice = load(ADVICES["clip-groups"])["clip"], ADVICES["clip-groups"].clip
    assert advice is not None
    assert set(document) == {field.name for field in fields(advice)} - {"norms"}
    assert (document["max_norm"], document["percentile"], document["n_eff"]) == (0.7312, 90, 96.2)
    assert document["interval"] == {"low": 0.689, "high": 0.7604}
    assert document["quantiles"][1]["interval"] is None
    assert document["groups"][2]["interval"] == {"low": 0.18, "high": 0.23}
    assert document["groups"][2]["share_clipped"] == "NaN"
    assert [entry["name"] for entry in document["candidates"]] == [one.name for one in advice.candidates]
    assert document["drift"]["interval"] == {"low": 0.934, "high": 1.117}
    assert load(ADVICES["clip-verified"])["clip"]["verified"][3]["loss"] == "NaN"
    assert (load(REPORTS["sick"])["clip"], load(TRACES["trace-clean"])["clip"]) == (None, None)


def test_a_comparison_is_there_in_full_and_null_without_a_baseline() -> None:
    document, comparison = load(REPORTS["baseline"])["comparison"], REPORTS["baseline"].comparison
    assert comparison is not None
    assert set(document) == {field.name for field in fields(comparison)}
    assert document["new"] == ["GC101:stages.*.*.conv", "GC306:stages.3.1.norm"]
    assert document["accepted"] == {"GC103:aux": "kept for export"}
    assert document["renamed"] == {"backbone.0": "stages.0", "backbone.1": "stages.1"}
    assert load(REPORTS["sick"])["comparison"] is None


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
numpy_values = st.floats().map(np.float64) | st.integers(-9, 9).map(np.int64) | st.just(np.array([[1.0, np.nan]]))
evidence = st.dictionaries(
    st.text(), st.recursive(scalars | numpy_values, lambda inner: st.lists(inner) | st.tuples(inner), max_leaves=5)
)


@settings(max_examples=100, deadline=None)
@given(evidence=evidence, layer=st.text(st.characters()))
def test_any_evidence_and_any_name_survive(evidence: dict[str, Any], layer: str) -> None:
    finding = Finding("GC101", "vanishing-gradient", Severity.ERROR, layer, layer, layer=layer, evidence=evidence)
    document = load(make_report(make_recording(steps=1), [finding]))
    VALIDATOR.validate(document)
    assert document["findings"][0]["layer"] == layer
    assert set(document["findings"][0]["evidence"]) == set(evidence)


def test_docs_name_every_field_and_their_example_is_valid() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for properties in (SCHEMA, *SCHEMA["$defs"].values(), *SCHEMA["properties"].values()):
        for field in properties.get("properties", {}):
            assert f"`{field}`" in text, field
    example = json.loads(text.partition("```json\n")[2].partition("```")[0], parse_constant=refuse)
    VALIDATOR.validate(example)
