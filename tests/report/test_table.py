"""The table: legible at any width, complete, and true to the numbers that were measured."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from gradcheck_cli.records import Finding, LayerSummary, NotEvaluated, Recording, Report, Severity
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.reports import HOSTILE_NAMES, LONG, REPORTS, make_report

reports = pytest.mark.parametrize("name", REPORTS)


def compact(text: str) -> str:
    """Without white space, so that what goes on to the next line is whole again."""
    return "".join(text.split())


def table_row(output: str, name: str) -> list[str]:
    """The cells behind a layer's name."""
    row = next(line for line in output.splitlines() if line.startswith(f"{name} "))
    return row.removeprefix(name).split()


def verdict(report: Report) -> str:
    return render_table(report, View(width=200)).splitlines()[-1]


@reports
@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_view(name: str, width: int, unicode: bool) -> None:
    for line in render_table(REPORTS[name], View(width, unicode=unicode, all_layers=True)).splitlines():
        assert cell_len(line) <= width, line


@reports
def test_without_colour_there_is_no_ansi_whatever_the_environment_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("JUPYTER_COLUMNS", "20")
    output = render_table(REPORTS[name], View())
    monkeypatch.undo()
    assert "\x1b" not in output
    assert output == render_table(REPORTS[name], View())


@reports
def test_colour_adds_only_colour(name: str) -> None:
    coloured = render_table(REPORTS[name], View(color=True))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_table(REPORTS[name], View())


@reports
def test_ascii_view_is_ascii(name: str) -> None:
    assert render_table(REPORTS[name], View(unicode=False, all_layers=True)).isascii()


@pytest.mark.parametrize("name", ["clean", "sick", "non_finite", "folded", "failed"])
@pytest.mark.parametrize("width", [80, 140])
def test_every_layer_and_finding_is_named_in_full_on_one_line(name: str, width: int) -> None:
    report = REPORTS[name]
    lines = render_table(report, View(width, all_layers=True)).splitlines()
    for layer in report.layers:
        assert any(line.startswith(f"{layer.name} ") for line in lines), layer.name
    for finding in report.diagnosis.findings:
        wanted = f"{finding.severity.value}  {finding.code} {finding.name}  {finding.layer}"
        assert any(line.endswith(wanted) for line in lines), wanted


def test_a_name_wider_than_its_column_stays_on_one_line() -> None:
    name = "model.decoder." + "y" * 60
    report = make_report(make_recording(steps=3, parameters={f"{name}.weight": (2, 2), "fc.weight": (2, 2)}))
    assert name in render_table(report, View(80)).splitlines()


def test_nothing_is_cut_where_even_the_least_has_no_room() -> None:
    output = render_table(REPORTS["sick"], View(20))
    assert "…" not in output
    for layer in REPORTS["sick"].layers:
        assert layer.name in output
    assert output.count("✗ error\n") == sum(layer.status == "error" for layer in REPORTS["sick"].layers)


def test_hostile_names_show_literally() -> None:
    output = render_table(REPORTS["hostile"], View(140))
    for shown in ("[red]fc[/red]", r"evil\x1b[2Jfc\x07", r"a\nb", "卷积.層", r"\u202eright-to-left", ":warning: [/]"):
        assert f"\n{shown} " in output
        assert f"large-gradient  {shown}\n" in output
    assert f"\n{LONG}\n" in output
    assert r"models/[bold]evil[/bold].py:\x1b[31mmake" in output
    assert len(HOSTILE_NAMES) == output.count("is [b]large[/b]")


@settings(max_examples=60, deadline=None)
@given(name=st.text(st.characters(exclude_characters="."), min_size=1, max_size=90), color=st.booleans())
def test_no_name_breaks_out(name: str, color: bool) -> None:
    finding = Finding("GC108", "tiny-gradient", Severity.INFO, f"{name} is tiny", f"enlarge {name}", layer=name)
    report = make_report(make_recording(steps=2, parameters={f"{name}.weight": (2, 2)}), [finding])
    output = render_table(report, View(width=80, color=color))
    visible = re.sub(r"\x1b\[[0-9;]*m", "", output) if color else output
    assert all(character.isprintable() for character in visible.replace("\n", ""))
    assert visible.encode("utf-8")
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert compact(visible).count(compact(escaped)) >= 4
    assert visible.splitlines()[-1] == "✓ gradients reach the only layer (2 steps, 1 info)"


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.text(st.sampled_from("ab.019²٣"), max_size=12), min_size=41, max_size=60, unique=True),
    depth=st.none() | st.integers(1, 3),
)
def test_folding_loses_no_layer(names: list[str], depth: int | None) -> None:
    output = render_table(
        replace(REPORTS["clean"], layers=tuple(make_layer(name) for name in names)), View(depth=depth)
    )
    table = output.partition("RMS  status\n")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if line.endswith("ok")]
    assert sum(int(match[1]) if (match := re.search(r" ×(\d+) ", row)) else 1 for row in rows) == len(names)


def make_layer(name: str, grad_rms: float = 0.1, status: str = "ok") -> LayerSummary:
    return LayerSummary(name, "Linear", (f"{name}.weight",), 4, grad_rms, 0.1, 1e-3, 0.0, 1.0, 0.1, status)


@pytest.mark.parametrize("width", [80, 140])
def test_printed_numbers_are_those_measured(width: int) -> None:
    recording = make_recording(steps=5, norms={"fc1.weight": [3.0, 4.0, 5.0, 6.0, 7.0], "fc1.bias": 12.0})
    cells = table_row(render_table(make_report(recording), View(width)), "fc1")
    joint = np.sqrt(recording.statistics.norm[:, 0] ** 2 + recording.statistics.norm[:, 1] ** 2)
    own = np.sqrt(recording.statistics.parameter_norm[:, 0] ** 2 + recording.statistics.parameter_norm[:, 1] ** 2)
    assert f"{np.median(joint / np.sqrt(32 + 8)):.1e}" in cells
    assert f"{np.median(joint / own):.1e}" in cells
    assert f"{np.median(recording.probes.output_grad_rms[:, 0]):.1e}" in cells


@reports
def test_golden_numbers_are_those_measured(name: str) -> None:
    report = REPORTS[name]
    assert report.recording is not None
    output = render_table(report, View(140, all_layers=True))
    for layer in report.layers:
        expected = gradient_rms(report.recording, layer.name)
        if layer.name not in HOSTILE_NAMES and not np.isnan(expected):
            assert f"{expected:.1e}".replace("0.0e+00", "0") in table_row(output, layer.name)[:2]
    norms = report.series.grad_norm
    if np.isfinite(norms).all():
        assert f"median {np.median(norms):.3g}, p95 {np.percentile(norms, 95):.3g}" in output


def gradient_rms(recording: Recording, module: str) -> float:
    """The median over steps of the RMS over a module's gradient, computed from squares."""
    columns = [index for index, parameter in enumerate(recording.parameters) if parameter.module == module]
    squares = (recording.statistics.norm[:, columns] ** 2).sum(axis=1)
    numel = sum(recording.parameters[column].numel for column in columns)
    rms = np.sqrt(squares / numel)
    return float(np.median(rms[~np.isnan(rms)])) if not np.isnan(rms).all() else float("nan")


def test_bars_are_logarithmic() -> None:
    layers = tuple(make_layer(name, 10.0**-power) for power, name in enumerate("abcde"))
    rows = render_table(replace(REPORTS["clean"], layers=layers), View(80)).splitlines()
    lengths = [next(row for row in rows if row.startswith(f"{name} ")).count("█") for name in "abcde"]
    assert lengths[0] > lengths[1] > lengths[2] > lengths[3] > lengths[4]
    steps = np.diff(lengths)
    assert max(steps) - min(steps) <= 1


def test_zero_and_missing_gradients_have_no_bar() -> None:
    layers = (make_layer("fine"), make_layer("zero", 0.0), make_layer("none", float("nan"), "no gradient"))
    output = render_table(replace(REPORTS["clean"], layers=layers), View(80))
    assert table_row(output, "zero")[:2] == ["0", "1.0e-01"]
    assert not set(table_row(output, "none")[1]) & set("█▏")


def test_a_gradient_that_was_nan_is_told_from_one_that_was_not_there() -> None:
    broken = replace(make_layer("broken", float("nan"), "error"), zero_fraction=0.0)
    missing = replace(make_layer("missing", float("nan"), "error"), zero_fraction=float("nan"))
    output = render_table(replace(REPORTS["clean"], layers=(broken, missing)), View(140))
    assert table_row(output, "broken")[1] == "nan"
    assert table_row(output, "missing")[1] == "–"


def test_repeated_blocks_fold_and_show_their_spread() -> None:
    output = render_table(REPORTS["folded"], View(140))
    assert "transformer.h.{0-11}.attn.c_attn ×12 " in output
    lines = output.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("transformer.h.{0-11}.attn.c_proj ×12"))
    members = [layer.grad_rms for layer in REPORTS["folded"].layers if layer.name.endswith("attn.c_proj")]
    for line, label, value in zip(
        lines[row:], ("×12", "min", "max"), (np.median(members), min(members), max(members)), strict=False
    ):
        assert re.search(rf"{label} .*{value:.1e}", line)


def test_a_sick_layer_is_not_folded_away() -> None:
    output = render_table(REPORTS["folded"], View(80))
    assert "transformer.h.{0..11}.mlp.c_fc ×11 " in output
    assert table_row(output, "transformer.h.7.mlp.c_fc")[-2:] == ["✗", "error"]


def test_depth_joins_what_shares_the_first_components() -> None:
    output = render_table(REPORTS["folded"], View(80, depth=2))
    assert "\ntransformer.h ×72 " in output
    assert "\ntransformer.ln_f " in output
    assert table_row(output, "transformer.h ×72")[-3:] == ["✗", "error", "GC104"]


def test_few_layers_are_not_folded() -> None:
    assert "×" not in render_table(REPORTS["sick"], View(140)).partition("largest")[0]


def test_extremes_are_the_largest_and_the_smallest() -> None:
    output = render_table(REPORTS["sick"], View(60))
    ranked = sorted((la for la in REPORTS["sick"].layers if la.grad_rms >= 0), key=lambda layer: layer.grad_rms)
    wanted = [layer.name for layer in [*ranked[:-6:-1], *ranked[:5]]]
    section = output.partition("largest gradients")[2].partition("\n\n")[0]
    shown = re.findall(r"e-\d\d  (\S+)", section)
    if "smallest" in section.splitlines()[0]:
        shown = shown[::2] + shown[1::2]
    assert shown == wanted


def test_columns_without_room_are_named() -> None:
    narrow, wide = (render_table(REPORTS["sick"], View(width)) for width in (80, 140))
    assert "no room at 80 columns for: update ratio, zero %" in narrow
    assert "no room" not in wide
    assert all(title in wide for title in ("gradient", "/ param", "update", "zero", "act. grad", "status", "codes"))


def test_findings_come_most_severe_first_with_all_that_is_known() -> None:
    output = render_table(REPORTS["sick"], View(140))
    places = [output.index(title) for title in ("GC101 vanishing", "GC306 weight", "GC103 unused", "GC201 gradient")]
    assert places == sorted(places)
    assert "step 2  models/cnn.py:34" in output
    assert "→ fix: initialise with" in output
    assert "GC201 gradient-spike: needs 20 steps" in output


def test_a_hint_shared_by_neighbours_is_said_once() -> None:
    assert render_table(REPORTS["sick"], View(140)).count("lower the learning rate") == 1


def test_header_says_what_was_run() -> None:
    output = " ".join(render_table(REPORTS["sick"], View(140)).split())
    for fact in (
        "gradcheck profile train.py:build",
        "parameters 18,890, 16,586 trainable",
        "device cpu, fp32",
        "steps 8 of 50, 4 batches each",
        "loss 2.3 → 2.29",
        "clipped 8 of 8 steps (max norm 0.5)",
        "overhead 2% of step time",
        "seed 0",
        "torch 2.13.0",
        "note the run stopped after 8 steps: the dataloader can be read only once and was exhausted",
        "note no optimizer: the weights stay where they are",
    ):
        assert fact in output
    assert "skipped 1 of 4 steps" in " ".join(render_table(REPORTS["non_finite"], View(140)).split())


def test_verdicts() -> None:
    assert verdict(REPORTS["clean"]) == "✓ gradients flow through all 3 layers (6 steps, 1 not evaluated)"
    assert verdict(REPORTS["sick"]) == "✗ 1 error, 2 warnings in 18 layers over 8 of 50 steps (1 info, 1 not evaluated)"
    assert verdict(REPORTS["hostile"]) == "▲ 7 warnings in 7 layers over 3 steps"
    assert verdict(REPORTS["failed"]) == "✗ the run failed after 2 of 50 steps: no error or warning up to then"


def test_verdict_does_not_claim_what_was_not_seen() -> None:
    layers = (make_layer("a"), make_layer("b", float("nan"), "frozen"), make_layer("c", 0.0))
    assert verdict(replace(REPORTS["clean"], layers=layers)).startswith("✓ gradients flow through 1 of 3 layers")
    assert verdict(replace(REPORTS["clean"], layers=layers[1:])) == "▲ gradients reach none of 2 layers (6 steps)"
    nothing = make_report(make_recording(steps=0))
    assert verdict(nothing) == "✗ no step was recorded, so nothing can be said of the gradients"
    gone = replace(REPORTS["failed"], error="", recording=None)  # rendered again from a saved recording
    assert verdict(gone) == verdict(REPORTS["failed"])
    assert verdict(replace(nothing, error="it broke")) == "✗ the run failed after 0 steps: nothing was recorded"


def test_gradients_do_not_flow_where_no_rule_could_judge_the_flow() -> None:
    report = make_report(make_recording(steps=1), skipped=[NotEvaluated("GC101", "vanishing-gradient", "one step")])
    assert verdict(report) == "✓ gradients reach all 2 layers (1 step, 1 not evaluated)"


def test_a_failed_run_shows_its_error() -> None:
    lines = render_table(REPORTS["failed"], View(80)).splitlines()
    assert '    File "train.py", line 12, in step' in lines
    assert "  ValueError: bad [batch]" in lines
