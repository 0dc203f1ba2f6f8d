"""The HTML report: complete, right, self-contained, and safe whatever a name holds."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradcheck_cli.errors import OutputError
from gradcheck_cli.records import Finding, Location, NotEvaluated, Report, RuleInfo, Severity
from gradcheck_cli.report import figures
from gradcheck_cli.report.formats import format_of, render
from gradcheck_cli.report.verdict import judge
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.pages import Element, data_of, make_page
from tests.report.rank_runs import RANKS
from tests.report.reports import REPORTS, make_report
from tests.report.traces import TRACES, make_trace, operations, sqrt

pytest.importorskip("jinja2")

ALL = {**REPORTS, **TRACES, **ADVICES, **RANKS}
PROFILES = {name: report for name, report in REPORTS.items() if not report.others}
EVIL = (
    "</script><script>window.owned=1</script>",
    "<img src=x onerror=window.owned=1>",
    "\"'><svg onload=window.owned=1>",
    "\u202e\u2028\u2029\x00\x1b[2J",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;]]>--><!--",
)
PAGES = cache(lambda name: make_page(ALL[name], View(all_ops=True)))
every_report = pytest.mark.parametrize("name", ALL)


def said(text: str) -> str:
    """A text as the page writes it, blanks aside."""
    return " ".join(View().name(text).split())


def words(element: Element) -> str:
    return " ".join(element.text.split())


@every_report
def test_page_is_whole_and_loads_nothing(name: str) -> None:
    page = PAGES(name)
    ids = [one.attributes["id"] for one in page.walk() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for one in page.walk():
        assert not {"src", "style", "action", "background"} & set(one.attributes)
        assert not any(attribute.startswith("on") for attribute in one.attributes)
        target = one.attributes.get("href", "#")
        assert target.startswith(("#", "data:image/png;base64,"))
        assert target.startswith("data:") or target[1:] in {"", *ids}
        for attribute in ("aria-labelledby", "aria-describedby"):
            assert set(one.attributes.get(attribute, "").split()) <= set(ids)
    levels = [int(one.tag[1]) for one in page.walk() if re.fullmatch("h[1-6]", one.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@every_report
def test_policy_allows_what_the_page_has_and_no_more(name: str) -> None:
    page = PAGES(name)
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy")
    rules = dict(part.split(" ", 1) for part in policy.attributes["content"].split("; "))
    (style,) = page.all("style")
    _, script = page.all("script")
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'{digest(style.text)}'",
        "script-src": f"'{digest(script.text)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@every_report
def test_every_finding_is_told_with_its_fix_and_linked_to_its_rule(name: str) -> None:
    page = PAGES(name)
    for report in (ALL[name], *ALL[name].others):
        cards = {words(one) for one in page.all("article") if "finding" in one.attributes.get("class", "")}
        for finding in report.diagnosis.findings:
            fits = [card for card in cards if said(finding.message) in card and finding.code in card]
            assert any(said(line) in fits[0] for line in finding.hint.splitlines() or [""])
            assert any(finding.severity.value in card for card in fits)
            assert not finding.layer or any(said(finding.layer) in card for card in fits)
        links = {one.attributes.get("href") for one in page.all("a")}
        assert {f"#rule-{one.code}" for one in report.diagnosis.findings} <= links
        for skipped in report.diagnosis.not_evaluated:
            assert said(skipped.reason) in words(page)


@pytest.mark.parametrize("name", PROFILES)
def test_verdict_and_layers_agree_with_the_report(name: str) -> None:
    report, page = PROFILES[name], PAGES(name)
    assert said(judge(report)[2]) in words(page.all("div", class_="verdicts")[0])
    rows = page.all("tr", class_="layer")
    assert len(rows) == len(report.layers)
    for layer, row in zip(report.layers, rows, strict=True):
        cells = [words(cell) for cell in row.children if isinstance(cell, Element)]
        shown = [figures.scientific(x) for x in (layer.grad_rms, layer.grad_to_parameter, layer.update_ratio)]
        assert cells[1] == (View().name(layer.name) or "(model)")
        assert cells[4:7] == shown
        assert cells[7] == figures.percent(layer.zero_fraction)
        assert cells[8:10] == [figures.scientific(layer.output_rms), figures.scientific(layer.output_grad_rms)]
        assert layer.status in cells[10]
        assert all(code in cells[10] for code in layer.codes)


def test_findings_point_at_their_causes_and_effects() -> None:
    page = make_page(REPORTS["linked"])
    anchors = {one.attributes["id"]: words(one) for one in page.all("article")}
    for finding in REPORTS["linked"].diagnosis.findings:
        (card,) = (one for one in page.all("article") if said(finding.message) in words(one))
        linked = [anchors.get(one.attributes["href"][1:], "") for one in card.all("a")]
        for other in {*finding.because, *finding.explains}:
            code, _, layer = other.partition(":")
            assert any(code in text and layer in text for text in linked)


def test_evidence_and_documentation_are_in_the_page() -> None:
    page = make_page(REPORTS["sick"])
    evidence = {words(one) for one in page.all("dt")}
    assert {"slope", "limit", "signal"} <= evidence
    assert "stages.0.0.conv, head" in {words(one) for one in page.all("dd")}
    (documentation,) = page.all("details", id="rule-GC101")
    assert "Something about vanishing-gradient." in words(documentation)


def test_series_in_the_page_are_those_of_the_run() -> None:
    report = REPORTS["non_finite"]
    chart = data_of(make_page(report))["m0-series"]
    told = {row["name"]: row["values"] for row in chart["rows"]}
    assert chart["labels"] == ["step 0", "step 1", "step 2", "step 3"]
    assert told["loss"] == [figures.plain(value) for value in report.series.loss]
    assert told["gradient norm"] == [figures.plain(value) for value in report.series.grad_norm]
    assert told["skipped"] == ["", "", "yes", ""]


def test_heat_map_has_the_numbers_of_every_layer_and_step() -> None:
    report = REPORTS["non_finite"]
    recording = report.recording
    assert recording is not None
    codes, values = decode(data_of(make_page(report))["m0-heat"])
    fc1 = recording.statistics.norm[:2, :2]
    assert values[0, :2] == pytest.approx(np.hypot(*fc1.T) / np.sqrt(32 + 8), rel=1e-3)
    assert codes[0, 2:].tolist() == [2, 2]
    assert codes[1].tolist() == [2, 2, 2, 2]
    caption = words(make_page(report).all("figcaption", id="m0-heat-description")[0])
    assert "Not finite in 2 layers, first at step 0." in caption


def test_heat_map_tells_absent_from_zero() -> None:
    norms = {"fc1.weight": None, "fc1.bias": None, "fc2.weight": 0.0, "fc2.bias": 0.0}
    page = make_page(make_report(make_recording(steps=5, norms=norms)))
    codes, _ = decode(data_of(page)["m0-heat"])
    assert codes.tolist() == [[0] * 5, [1] * 5]
    legend = words(page.all("section", id="m0-heat")[0])
    assert "no gradient" in legend
    assert "exactly 0" in legend


def decode(chart: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and gradient RMS (layers, columns) as the page's script reads them."""
    shape = len(chart["rows"]), len(chart["labels"])
    codes = np.frombuffer(base64.b64decode(str(chart["cells"])), dtype="<u2").astype(int).reshape(shape)
    low, high = float(str(chart["low"])), float(str(chart["high"]))
    shares = (codes - int(str(chart["first"]))) / (int(str(chart["levels"])) - 1)
    return codes, 10 ** (low + shares * (high - low))


def test_long_runs_are_thinned_and_say_so_and_keep_every_spike() -> None:
    norms = np.full(5000, 0.5)
    norms[4321] = 300.0
    losses = np.linspace(2, 1, 5000)
    page = make_page(make_report(make_recording(steps=5000, grad_norm=norms, loss=losses, recorded=range(0, 5000, 2))))
    data = data_of(page)
    (told,) = (row["values"] for row in data["m0-series"]["rows"] if row["name"] == "gradient norm")
    (index,) = (index for index, value in enumerate(told) if "300" in value)
    first, last = re.findall("[0-9,]+", data["m0-series"]["labels"][index])
    assert int(first.replace(",", "")) <= 4321 <= int(last.replace(",", ""))
    assert len(told) < 1000
    assert "each point stands for up to 9 steps" in words(page.all("figcaption", id="m0-series-description")[0])
    assert "the largest of them" in words(page.all("figcaption", id="m0-heat-description")[0])


def test_very_many_layers_are_joined_and_say_so() -> None:
    parameters = {f"blocks.{index}.fc.weight": (2, 2) for index in range(2000)}
    page = make_page(make_report(make_recording(steps=3, parameters=parameters)))
    (row,) = page.all("tr", class_="layer")
    assert "blocks.{0-1999}.fc ×2000" in words(row)
    assert "2,000 layers; those that are alike share a row" in words(page.all("caption")[0])
    assert "every 2nd of 2,000 layers is shown" in words(page.all("figcaption", id="m0-flow-description")[0])
    assert "up to 5 neighbouring layers" in words(page.all("figcaption", id="m0-heat-description")[0])


def test_blocks_fold_in_large_models_unless_something_is_wrong() -> None:
    page = make_page(REPORTS["folded"])
    states = {
        words(one.all("span", class_="name")[0]): one.attributes["data-folded"]
        for one in page.all("tbody")
        if "data-block" in one.attributes
    }
    assert states.pop("transformer.h.7") == "false"
    assert set(states.values()) == {"true"}
    unfolded = make_page(REPORTS["folded"], View(all_layers=True))
    assert not unfolded.all("tbody", data_folded="true")


def test_150_tensors_and_300_steps_take_far_less_than_2_megabytes() -> None:
    random = np.random.default_rng(0)
    parameters = {f"blocks.{index // 6}.{'abcdef'[index % 6]}.weight": (64, 64) for index in range(150)}
    norms = {name: np.exp(random.normal(-2, 1, 300)) for name in parameters}
    html = str(render(make_report(make_recording(steps=300, parameters=parameters, norms=norms)), "html"))
    assert len(html.encode()) < 700_000  # of noise, which no compression helps


def test_trace_leads_from_the_origin_to_the_sink() -> None:
    page = make_page(TRACES["trace-backward"])
    (path,) = page.all("ol", class_="path")
    stations = [words(one) for one in path.all("li")]
    assert "origin aten::sqrt (SqrtBackward0)" in stations[0]
    assert "models/norm.py:42" in stations[0]
    assert words(path.all("mark")[0]) == "torch.sqrt(x.pow(2).mean(-1, keepdim=True))"
    assert "seen in gradient of encoder.layers.0.fc.weight" in stations[-1]
    assert [one.split()[0] for one in stations[1:-1]] == ["div", "mul"]


def test_trace_follows_the_writers_on_the_tape() -> None:
    tape = list(operations())
    carrier = tape[4]
    wrote = tuple(replace(one, nan_from=(3,)) for one in carrier.inputs)
    tape[4] = replace(carrier, inputs=wrote)
    sink = replace(TRACES["trace-backward"].trace.sinks[0], nan_from=(4,))
    trace = replace(TRACES["trace-backward"].trace, sinks=(sink,), operations=tuple(tape), origins=(sqrt(),))
    (path,) = make_page(make_trace(trace)).all("ol", class_="path")
    middle = [words(one) for one in path.all("li")][1:-1]
    assert len(middle) == 1
    assert middle[0].startswith("scale (ScaleBackward) backward")


def test_clip_advice_is_that_of_the_terminal() -> None:
    page = make_page(ADVICES["clip-needed"])
    text = words(page)
    assert "clip at max_norm 0.831 (95% interval 0.74 to 0.951)" in text
    assert "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.831)" in text
    assert "it will clip 5.4% of the next 500 steps" in text
    assert [words(cell) for cell in page.all("tr", class_="chosen")[0].walk()][:2] == ["p95 (recommended)", "0.831"]
    assert any("max_norm" in words(one) for one in page.all("text", class_="chosen"))
    assert not make_page(ADVICES["clip-fix-first"]).all("pre", class_="code")


def test_models_of_one_script_have_sections_of_their_own() -> None:
    report = REPORTS["several"]
    page = make_page(report)
    sections = page.all("div", class_="model")
    assert [words(one.all("h2")[0]) for one in sections] == [one.run.model for one in (report, *report.others)]
    assert len(page.all("tr", class_="layer")) == sum(len(one.layers) for one in (report, *report.others))


def test_baseline_is_told() -> None:
    report = REPORTS["baseline"]
    assert report.comparison is not None
    text = words(make_page(report))
    assert f"Since the baseline {report.comparison.baseline}" in text
    assert all(said(one) in text for one in report.comparison.better)
    assert all(said(reason) in text for reason in report.comparison.accepted.values())


@pytest.mark.parametrize(
    "run",
    [
        {"steps": 0},
        {"steps": 1},
        {"steps": 5, "loss": np.nan, "grad_norm": np.nan},
        {"steps": 5, "loss": [1, np.inf, -np.inf, np.nan, 1], "grad_norm": np.inf},
        {"steps": 5, "loss": 0.0, "grad_norm": 0.0},
        {"steps": 5, "loss": 1e-300, "grad_norm": 1e-310},
        {"steps": 5, "loss": [-1, -2, -3, -4, -5], "output_rms": {"fc1": 0.0, "fc2": np.inf}},
        {"steps": 5, "loss": np.nan, "sees_loss": False, "probed": []},
        {"steps": 5, "recorded": []},
        {"steps": 5, "parameters": {}, "grad_norm": [0.1, 0.2, 0.3, 0.1, 0.2]},
    ],
)
@pytest.mark.filterwarnings("error")
def test_runs_with_next_to_nothing_in_them_have_a_page(run: dict[str, object]) -> None:
    report = make_report(make_recording(**run))
    assert said(judge(report)[2]) in words(make_page(report).all("div", class_="verdicts")[0])


def evil_report(name: str) -> Report:
    """A report that has the name wherever one can be."""
    recording = make_recording(steps=3, parameters={f"{name}.weight": (4, 4), "fc.weight": (4, 4)}, notes=(name,))
    finding = Finding(
        "GC107",
        name,
        Severity.WARNING,
        name,
        name,
        layer=name,
        step=1,
        evidence={name: name, "list": [name], "deep": [{name: name}]},
        location=Location(name, 1),
    )
    report = make_report(recording, [finding], [NotEvaluated("GC201", name, name)], error=name)
    rules = (RuleInfo("GC107", name, Severity.WARNING, f"# x\n\n## What it detects\n\n{name}\n\n1. {name}\n"),)
    return replace(report, run=replace(recording.run, target=name, model=name), rules=rules)


@cache
def allowed_tags() -> frozenset[str]:
    """Those of a page with a harmless name, and what the Markdown of a rule's documentation may become."""
    return frozenset(one.tag for one in make_page(evil_report("harmless")).walk()) | {"h5", "h6", "ul", "ol", "strong"}


@pytest.mark.parametrize("name", EVIL)
def test_hostile_names_add_no_element_and_no_attribute(name: str) -> None:
    page = make_page(evil_report(name))
    assert {one.tag for one in page.walk()} <= allowed_tags()
    assert len(page.all("script")) == 2
    assert not page.all("img")
    assert said(name) in words(page)
    html = str(render(evil_report(name), "html"))
    assert not any(sign in html for sign in "\u202e\u2028\u2029\x00\x1b")


names = st.text(st.characters(codec="utf-8") | st.sampled_from("<>&\"'`=/{}%#\\\u202e\u2028\ufeff\x7f"), min_size=1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names.filter(lambda name: len(name.split()) == 1 and name == name.strip()))
def test_no_name_can_inject_anything(name: str) -> None:
    page = make_page(evil_report(name))
    assert {one.tag for one in page.walk()} <= allowed_tags()
    assert len(page.all("script")) == 2
    assert data_of(page)["m0-heat"]["rows"][0].startswith(View().name(name)[:1])
    html = str(render(evil_report(name), "html"))
    assert all(sign.isprintable() or sign == "\n" for sign in html)


def test_documentation_is_text_but_for_its_headings_lists_and_code() -> None:
    text = (
        "# GC1 x\n\n## Why <b>\n\nA `<i>` and **so**:\n\n1. one\n   more\n2. two\n\n- x\n\n```\n<pre>\n\n## no\n```\n"
    )
    report = REPORTS["sick"]
    rules = (replace(report.rules[0], documentation=text), *report.rules[1:])
    (page,) = make_page(replace(report, rules=rules)).all("details", id=f"rule-{rules[0].code}")
    assert [words(one) for one in page.all("h4")] == ["Why <b>"]
    assert [words(one) for one in page.all("code")] == ["<i>", "<pre> ## no"]
    assert [words(one) for one in page.all("strong")] == ["so"]
    assert [words(one) for one in page.all("ol")[0].all("li")] == ["one more", "two"]
    assert [words(one) for one in page.all("ul")[0].all("li")] == ["x"]


def test_without_jinja_an_html_report_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for ask in (lambda: format_of(Path("report.html")), lambda: render(REPORTS["clean"], "html")):
        with pytest.raises(OutputError) as raised:
            ask()
        assert raised.value.hint == "pip install 'gradcheck_cli[report]'"
    assert format_of(Path("report.json")) == "json"


def test_nothing_of_the_clock_or_of_chance_is_in_the_page() -> None:
    assert render(REPORTS["sick"], "html") == render(replace(REPORTS["sick"]), "html")
