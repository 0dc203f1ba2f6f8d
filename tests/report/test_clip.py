"""The text of recommend-clip: the answer first, every value that it rests on, code that runs."""

from __future__ import annotations

import math
import re
import shlex
import textwrap
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from gradcheck_cli.clip_advice import Candidate, ClipAdvice, ClipGroup, ClipLayer, Interval, JudgedNorm, VerifiedRun
from gradcheck_cli.records import Floats, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES, STEPS, WARMUP, make_advice, make_clip_report, make_norms
from tests.report.reports import HOSTILE_NAMES

advices = pytest.mark.parametrize("name", ADVICES)
LOOP = "between loss.backward() and optimizer.step():\n"


def show(report: Report, width: int = 140, **view: Any) -> str:
    return render_table(report, View(width, **view))


def changed(name: str, **members: Any) -> Report:
    """A report with other advice."""
    return replace(ADVICES[name], clip=replace(advice_of(name), **members))


def advice_of(name: str) -> ClipAdvice:
    advice = ADVICES[name].clip
    assert advice is not None
    return advice


def flat(text: str) -> str:
    return " ".join(text.split())


def section(output: str, title: str) -> list[str]:
    """The lines below a title, up to the next blank one."""
    return output[output.index(title) :].partition("\n\n")[0].splitlines()[1:]


def bins(output: str) -> list[tuple[str, int, str]]:
    """Range, number and marks of each row of the histogram."""
    rows = [line for line in section(output, "gradient norms of") if "all of them" not in line]
    matches = [re.fullmatch(r" *(0|\S+ to \S+) +([\d,]+) *[█▏▎▍▌▋▊▉]* *(?:← (.*))?", row) for row in rows]
    found = [match.groups() for match in matches if match]
    assert len(found) == len(rows), rows
    return [(label, int(number.replace(",", "")), mark or "") for label, number, mark in found]


@advices
@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_view(name: str, width: int, unicode: bool) -> None:
    for line in show(ADVICES[name], width, unicode=unicode).splitlines():
        assert cell_len(line) <= width, line


@advices
def test_ascii_view_is_ascii_and_colour_adds_only_colour(name: str) -> None:
    assert show(ADVICES[name], unicode=False).isascii()
    coloured = show(ADVICES[name], color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == show(ADVICES[name])


@pytest.mark.parametrize("name", ["clip-needed", "clip-verified", "clip-norm-list"])
def test_the_answer_is_on_the_first_screen(name: str) -> None:
    value = figures.norm(advice_of(name).max_norm or math.nan)
    screen = "\n".join(show(ADVICES[name], 80).splitlines()[:24])
    assert f"clip at max_norm {value} (95% interval" in screen
    assert "it will clip 5.4% of the next 500 steps (95% interval 2 to 11%)" in screen
    assert f"max_norm={value})" in screen


def test_everything_that_was_measured_is_there() -> None:
    output = flat(show(ADVICES["clip-needed"]))
    for fact in (
        "clip at max_norm 0.831 (95% interval 0.74 to 0.951)",
        "the 95th percentile of 271 steps, worth 96 independent ones",
        "fitted on the first 70%, it clipped 4.9% of the rest (promised: 1.1 to 12%)",
        "300 run, 271 kept, worth 96 independent ones",
        "the first 29 left out: the norms settle then (MSER-5)",
        "p90 0.731 (95% interval 0.689 to 0.76), worth 88 independent steps",
        "p95 0.831 (95% interval 0.74 to 0.951), worth 96 independent steps",
        "p99 takes 368 independent steps, these are worth 120",
        "none found (Mann-Kendall, p = 0.312), which does not mean that there is none",
        "factor over 100 steps: 1.02 (95% interval 0.934 to 1.12)",
        "heavy: generalised Pareto shape 0.213 (95% interval 0.041 to 0.386)",
        "from the 27 norms above 0.731; p99 is 1.62 by this tail, 1.58 by counting",
        "trained: past initialisation and warm-up",
        "transformer: 1.0; the value measured here agrees",
        "GPT-2 and LLaMA were trained with 1.0",
        "GC403 clip-needed",
        *advice_of("clip-needed").caveats,
    ):
        assert fact in output


def test_every_candidate_and_every_large_layer_has_its_row() -> None:
    output = show(ADVICES["clip-needed"])
    rows = [line.split() for line in section(output, "what other choices")]
    for row in (
        ["p90", "0.731", "10%", "81%"],
        ["p95", "(recommended)", "0.831", "5.2%", "75%"],
        ["5.0", "5.0", "0%", "–"],
        ["ZClip", "last", "0.912", "3.3%", "66%"],
        ["mean", "+", "6", "sigma", "last", "1.91", "1.8%", "skips"],
        ["AdaGC", "–", ">99%", "55%"],
    ):
        assert row in rows
    assert "  AdaGC: the first 100 steps are its warm-up" in output
    layers = section(output, "which layers make the norm")
    assert [line.split()[0] for line in layers[1:9]] == [layer.name for layer in advice_of("clip-needed").layers[:8]]
    assert layers[1].split() == ["head", "30%", "25%"]
    assert layers[9] == "and 2 more layers, the largest of them 2%"


def test_a_note_that_candidates_share_is_said_once() -> None:
    shared = tuple(Candidate(name, None, 0.1, 0.5, note="per tensor") for name in ("AdaGC", "AGC"))
    output = show(changed("clip-needed", candidates=shared))
    assert output.count("per tensor") == 1
    assert "  AdaGC, AGC: per tensor\n" in output


def test_not_needed_says_so_first_and_gives_a_guard_all_the_same() -> None:
    output = show(ADVICES["clip-not-needed"])
    answer = output.split("\n\n")[2].splitlines()
    assert answer[0].startswith("✓ clipping is not needed: no step is beyond 6 robust sigmas")
    assert answer[1] == "if you want a guard against spikes anyway:"
    assert answer[2] == "max_norm 0.812 (95% interval 0.794 to 0.833)"
    assert "(recommended)" not in output
    assert "2 left out: the gradient scaler skipped the step" in output
    assert "your max_norm 5.0 clips 0% of the steps (95% interval 0 to 0.71%): it never acts" in output
    assert "not shown to be heavy: generalised Pareto shape -0.12 (95% interval -0.31 to 0.07)" in output


def test_fix_first_names_what_to_fix_and_gives_nothing_to_paste() -> None:
    output = show(ADVICES["clip-fix-first"])
    answer = output.split("\n\n")[2]
    assert answer.startswith("✗ fix this first, clipping would hide it: GC206 diverging-loss")
    assert "ask again when that is mended:\nmax_norm 16.2 (95% interval 13.4 to 18.9)" in answer
    assert "clipped 31% of the rest (promised: 1.1 to 12%, so do not rely on it)" in answer
    assert "your max_norm 0.1 clips 100% of the steps (95% interval 98 to 100%): it sets the length" in answer
    assert "clip_grad_norm_" not in output
    assert output.index("→ fix: lower the learning rate") < output.index("gradient norms of")
    assert "3 left out: the norm was not finite" in output
    assert "RNN: 0.5 to 5.0; the value measured here does not agree" in output
    assert "the norms went up (Mann-Kendall, p = 0.0001)" in output


def test_too_few_steps_ends_in_a_command_to_type() -> None:
    report = ADVICES["clip-insufficient"]
    target = "my models/gpt's.py:build"
    for output, wanted in (
        (show(report, 80), "train.py:build"),
        (show(replace(report, run=replace(report.run, target=target))), target),
    ):
        command = next(line for line in output.splitlines() if line.startswith("  → "))
        assert shlex.split(command)[1:] == ["gradcheck", "recommend-clip", wanted, "--steps", "120"]
        assert "clip_grad_norm_" not in output
    assert show(report).startswith("gradcheck recommend-clip")
    assert show(report).splitlines()[-1] == (
        "▲ too few steps for a value: 20 steps are worth 9.31 independent ones, 36 are needed for p90"
    )


def test_a_lower_percentile_than_asked_for_is_said() -> None:
    output = show(ADVICES["clip-groups"])
    assert "the 90th percentile of 271 steps" in output
    assert (
        "▲ too few steps for the 95th percentile\n  → gradcheck recommend-clip train.py:build --steps 420\n" in output
    )
    assert "too few" not in show(ADVICES["clip-needed"])


@pytest.mark.parametrize(("regime", "early"), [("initialisation", True), ("warm-up", True), ("drifting", False)])
def test_a_value_from_the_start_of_training_is_labelled(regime: str, early: bool) -> None:
    assert ("come back with --checkpoint" in show(changed("clip-needed", regime=regime))) == early


def test_a_list_of_norms_has_no_model_and_no_command() -> None:
    output = show(changed("clip-norm-list", steps_needed=900, regime="initialisation"))
    assert output.split("\n\n")[1] == "  steps  175"
    assert "  → record the norms of 900 steps\n" in output
    assert "--checkpoint" not in output
    assert "--steps" not in output


def run_pasted(output: str, place: int = 0) -> list[tuple[Any, ...]]:
    """What the code after "between ..." calls."""
    lines = output.split(LOOP)[1 + place].splitlines()
    code = textwrap.dedent("\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("  "))]))
    calls: list[tuple[Any, ...]] = []
    clip = SimpleNamespace(clip_grad_norm_=lambda parameters, max_norm: calls.append((parameters, max_norm)))
    names = {
        "torch": SimpleNamespace(nn=SimpleNamespace(utils=clip)),
        "model": SimpleNamespace(parameters=lambda: "all"),
        "optimizer": SimpleNamespace(param_groups=[{"params": f"group {index}"} for index in range(40)]),
        "scaler": SimpleNamespace(unscale_=lambda optimizer: calls.append(("unscale",))),
    }
    exec(compile(code, "pasted", "exec"), names)
    return calls


@pytest.mark.parametrize("width", [60, 80, 140])
@given(value=st.floats(1e-9, 1e9))
@settings(max_examples=20, deadline=None)
def test_pasted_code_clips_at_the_value_that_is_shown(width: int, value: float) -> None:
    output = show(changed("clip-needed", max_norm=value), width)
    shown = re.search(r"clip at max_norm (\S+)", output)
    assert shown
    assert run_pasted(output) == [("all", float(shown[1]))]
    for name, argument in (("Trainer", "gradient_clip_val"), ("TrainingArguments", "max_grad_norm")):
        line = next(line for line in output.splitlines() if line.startswith(f"  {name}("))
        assert eval(line.strip(), {name: dict}) == {argument: float(shown[1])}


def test_scaled_gradients_are_unscaled_before_they_are_clipped() -> None:
    assert run_pasted(show(ADVICES["clip-not-needed"])) == [("unscale",), ("all", 0.812)]
    assert "unscale_" not in show(ADVICES["clip-needed"])


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("number", [2, 3, 40])
def test_groups_have_values_of_their_own(width: int, number: int) -> None:
    interval = Interval(0.01234567, 12345.67)
    groups = tuple(ClipGroup(i, 2, 1234567890, 0.001234 * (i + 1), interval, 1 / number, 0.5) for i in range(number))
    output = show(changed("clip-groups", groups=groups, looseness=math.sqrt(number)), width)
    expected = [(f"group {i}", float(f"{0.001234 * (i + 1):.3g}")) for i in range(number)]
    assert run_pasted(flat_code(output), 1) == [("unscale",), *expected]
    assert f"sqrt({number}) = {math.sqrt(number):.3g} times as much" in flat(output)
    assert output.count("1.23B") == number


def flat_code(output: str) -> str:
    """At 60 columns the sentence before the code goes on to the next line."""
    return output.replace("between loss.backward() and\noptimizer.step():\n", LOOP)


def test_the_table_of_groups() -> None:
    rows = [line.split() for line in section(show(ADVICES["clip-groups"]), "parameter groups")]
    assert rows[1] == ["0", "24", "10.7M", "0.691", "0.64", "to", "0.733", "83%", "91%"]
    assert rows[2] == ["1", "25", "12,288", "0.0931", "–", "2%", "1.1%"]
    assert "parameter groups" not in show(changed("clip-groups", groups=advice_of("clip-groups").groups[:1]))


norms = st.lists(st.one_of(st.just(0.0), st.floats(1e-300, 1e300)), min_size=1, max_size=80)


@given(values=norms)
@settings(max_examples=80, deadline=None)
def test_the_histogram_counts_every_norm_once(values: list[float]) -> None:
    rows = bins(show(changed("clip-needed", norms=np.array(values), candidates=(), max_norm=None)))
    assert sum(number for _, number, _ in rows) == len(values)
    assert sum(number for label, number, _ in rows if label == "0") == values.count(0)
    assert len(rows) <= 13


def test_the_histogram_is_that_of_numpy() -> None:
    values = make_norms()[WARMUP:]
    counts, edges = np.histogram(np.log(values), bins=12)
    rows = bins(show(ADVICES["clip-needed"]))
    assert [number for _, number, _ in rows] == counts.tolist()
    assert [label.split(" to ")[0] for label, _, _ in rows] == [figures.norm(edge) for edge in np.exp(edges[:-1])]
    assert rows[-1][0].endswith(f" to {figures.norm(values.max())}")


@given(values=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=60), threshold=st.floats(1e-4, 1e4))
@example(values=[1.0, 0.0010000000000000002], threshold=0.001)
@settings(max_examples=80, deadline=None)
def test_a_threshold_is_marked_where_it_lies(values: list[float], threshold: float) -> None:
    output = show(changed("clip-needed", norms=np.array(values), candidates=(), max_norm=threshold))
    rows = [label.split(" to ") for label, _, mark in bins(output) if mark == "max_norm"]
    place, logs = np.log(threshold), np.log(values)  # which take two neighbouring numbers for one
    if min(logs) <= place <= max(logs):
        ((low, high),) = rows
        assert float(low) * 0.99 <= threshold <= float(high) * 1.01
    else:
        assert not rows
        assert f"  {'below' if place < min(logs) else 'above'} all of them: max_norm" in output


def test_thresholds_beyond_the_norms_are_named_too() -> None:
    output = show(ADVICES["clip-fix-first"])
    assert "  below all of them: 0.5, yours\n" in output
    assert "  above all of them: 5.0\n" in show(ADVICES["clip-needed"])
    equal = replace(JudgedNorm(1.0, 0.1, Interval(0, 0.2), "acts"))
    assert "yours" not in show(changed("clip-needed", judged=equal))  # 1.0 is among the candidates
    zeros = show(changed("clip-needed", norms=np.zeros(5), candidates=(), max_norm=0.5))
    assert bins(zeros) == [("0", 5, "")]
    assert "  above all of them: max_norm\n" in zeros


def report_of(values: Floats, warmup: int = 0, **recording: Any) -> Report:
    kept = values[np.isfinite(values)][warmup:]
    advice = make_advice(norms=kept, warmup_excluded=warmup)
    return make_clip_report(advice, recording=make_recording(steps=len(values), grad_norm=values, **recording))


def line_of(output: str, label: str) -> str:
    """The cells behind a label of the sparkline."""
    line = next(line for line in section(output, "gradient norm over") if line.strip().startswith(f"{label} "))
    return line[len("  not finite  ") :]


def test_the_sparkline_shows_when_norms_were_high() -> None:
    values = np.full(60, 0.1)
    values[[40, 41]] = 10, 1.5
    output = show(report_of(values, warmup=6))
    cells = "▁" * 40 + "█" + "▅" + "▁" * 18
    assert line_of(output, "highest") == line_of(output, "median") == cells
    assert line_of(output, "left out") == "^" * 6
    assert "log scale from 0.1 to 10.0" in output
    assert line_of(show(report_of(values), unicode=False), "highest") == "_" * 40 + "#" + "+" + "_" * 18


def test_a_cell_of_several_steps_shows_its_highest_norm_and_its_median() -> None:
    values = np.full(3 * 126, 0.1)
    values[3 * 50 + 1] = 10
    output = show(report_of(values, warmup=30))
    assert line_of(output, "highest") == "▁" * 50 + "█" + "▁" * 75
    assert line_of(output, "median") == "▁" * 126
    assert line_of(output, "left out") == "^" * 10


def test_steps_without_a_finite_norm_are_marked_and_are_no_part_of_the_warm_up() -> None:
    values = np.linspace(1, 2, 60)
    values[[0, 1, 30]] = np.inf, np.inf, np.nan
    output = show(report_of(values, warmup=6, skipped=[0, 1, 2]))
    assert line_of(output, "not finite") == "xx" + " " * 28 + "x"
    assert line_of(output, "left out") == "^" * 9
    assert line_of(output, "highest")[30] == " "
    assert "gradient norm over" not in show(report_of(np.full(5, np.nan)))
    assert "not finite  " not in show(ADVICES["clip-needed"])


def test_verified_runs_stand_beside_each_other() -> None:
    rows = [line.split() for line in section(show(ADVICES["clip-verified"]), "trained again")]
    assert rows[1:] == [
        ["unclipped", "0.411", "0%", "–", "300", "completed"],
        ["0.831", "0.402", "5.7%", "yes", "300", "completed"],
        ["1.0", "0.413", "19%", "no", "300", "completed"],
        ["ZClip", "–", "50%", "–", "41", "nonfinite-loss"],
    ]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        (
            "clip-needed",
            "• clip at max_norm 0.831: 5 of 271 steps are spikes beyond 6 robust sigmas; the tail is heavy",
        ),
        ("clip-not-needed", "✓ clipping is not needed: no step is beyond 6 robust sigmas"),
        ("clip-fix-first", "✗ fix this first, clipping would hide it: GC206"),
        ("clip-insufficient", "▲ too few steps for a value: 20 steps"),
    ],
)
def test_the_last_line_is_the_verdict_and_why(name: str, last: str) -> None:
    assert show(ADVICES[name]).splitlines()[-1].startswith(last)


def test_a_run_that_failed_says_so_last() -> None:
    lines = show(replace(ADVICES["clip-needed"], error="ValueError: bad [batch]")).splitlines()
    assert "  ValueError: bad [batch]" in lines
    assert lines[-2].startswith("• clip at")
    assert lines[-1] == f"✗ the run failed after {STEPS} steps"


def test_a_layer_that_dominates_is_named() -> None:
    assert "head makes most of the norm" in show(ADVICES["clip-groups"])
    assert "makes most" not in show(ADVICES["clip-needed"])


def test_hostile_names_show_literally() -> None:
    output = show(ADVICES["clip-hostile"])
    for name in (r"[red]fc[/red]", r"evil\x1b[2Jfc\x07", r"a\nb", "卷积.層", r"\u202eright-to-left", ":warning: [/]"):
        assert output.count(f"\n{name} ") == 3  # candidates, layers, runs
        assert f"{name}: {name} is limited" in output
    assert len(HOSTILE_NAMES) == output.count("[b]bad[/b]")


@given(name=st.text(st.characters(), min_size=1, max_size=90), color=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_name_breaks_out(name: str, color: bool) -> None:
    assume(name.strip())
    report = changed(
        "clip-needed",
        reasons=(name,),
        layers=(ClipLayer(name, 0.9, 0.8),),
        dominant=name,
        candidates=(Candidate(name, 0.7, 0.1, 0.5),),
        verified=(VerifiedRun(name, 0.4, 0.1, 3, "completed"),),
        notes=(name,),
    )
    output = show(report, 80, color=color)
    visible = re.sub(r"\x1b\[[0-9;]*m", "", output) if color else output
    assert all(character.isprintable() for character in visible.replace("\n", ""))
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert "".join(visible.split()).count("".join(escaped.split())) >= 7


@given(value=st.floats(1e-12, 1e12))
def test_norms_have_three_digits(value: float) -> None:
    text = figures.norm(value)
    assert float(text) == float(f"{value:.3g}")
    assert len(re.sub(r"e.*|\.", "", text).strip("0")) <= 3
    if float(text) >= 1e-4:
        assert re.fullmatch(r"\d+(\.\d+)?", text)
    if float(text) >= 100:
        assert "." not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.83, "0.83"),
        (0.8312, "0.831"),
        (1, "1.0"),
        (5.0, "5.0"),
        (99.96, "100"),
        (12345.6, "12300"),
        (1e-4, "0.0001"),
        (1.234e-5, "1.23e-05"),
    ],
)
def test_norms_as_they_are_written(value: float, text: str) -> None:
    assert figures.norm(value) == text


@pytest.mark.parametrize(
    ("number", "text"), [(95, "95th"), (91, "91st"), (92, "92nd"), (93, "93rd"), (11, "11th"), (99.9, "99.9th")]
)
def test_percentiles_as_they_are_spoken(number: float, text: str) -> None:
    assert figures.ordinal(number) == text
