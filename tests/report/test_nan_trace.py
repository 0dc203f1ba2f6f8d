"""What nan-trace shows: legible anywhere, true to the trace, and silent about nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from gradcheck_cli.config import Settings
from gradcheck_cli.errors import ConfigError, GradcheckError, OutputError
from gradcheck_cli.records import Location, Report, Severity
from gradcheck_cli.report.output import check_directory
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import Frame, NanOrigin, NanTrace, Sink
from tests.report.traces import (
    FINITE,
    MINUS_INF,
    NAN,
    RMS_NORM,
    SCALAR_NAN,
    TRACES,
    make_trace,
    operation,
    softmax,
    sqrt,
)

LOSS = Sink("loss", "", SCALAR_NAN)
traces = pytest.mark.parametrize("name", TRACES)


def show(report: Report, width: int = 200, **view: Any) -> str:
    return render_table(report, View(width, **view))


def failing(*origins: NanOrigin, **members: Any) -> Report:
    return make_trace(NanTrace(38, 37, (LOSS,), origins, **members))


def row(output: str, label: str) -> str:
    """What stands behind a label, its further lines included."""
    found = re.search(rf"^  {label} +(.*(?:\n {{13}}.*)*)", output, flags=re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


@traces
@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("all_ops", [True, False])
def test_no_line_is_wider_than_the_view(name: str, width: int, unicode: bool, all_ops: bool) -> None:
    for line in show(TRACES[name], width, unicode=unicode, all_ops=all_ops).splitlines():
        assert cell_len(line) <= width, line


@traces
def test_ascii_and_colour_change_nothing_else(name: str) -> None:
    assert show(TRACES[name], unicode=False, all_ops=True).isascii()
    coloured = show(TRACES[name], color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == show(TRACES[name])
    assert "\x1b[" in coloured


def test_hostile_names_show_literally() -> None:
    output = show(TRACES["trace-hostile"], all_ops=True)
    assert all(character.isprintable() for character in output.replace("\n", ""))
    for shown in ("[red]fc[/red]", r"evil\x1b[2Jfc\x07", "卷积.層", r"\u202eright-to-left", ":warning: [/]"):
        assert f"{shown} is [b]bad[/b]" in output
    assert r"[red]evil.py:\x1b[31mmake" in output


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(), min_size=1, max_size=90), width=st.integers(30, 120))
def test_no_text_breaks_out(text: str, width: int) -> None:
    frame = Frame(Location(text, 3), text, text, text[: len(text) // 2], Location(text, 4))
    origin = sqrt(frame=frame, op=text, module=text, explanation=text, fix=text, contributors=(text,), path=(text,))
    trace = NanTrace(38, 37, (LOSS,), (origin,), operations=(operation(0, text, NAN, FINITE, frame=frame),))
    output = show(make_trace(trace), width, all_ops=True)
    assert all(character.isprintable() for character in output.replace("\n", ""))
    assert max(map(cell_len, output.splitlines())) <= width


def test_everything_known_of_an_origin_is_shown() -> None:
    output = show(TRACES["trace-backward"])
    assert "\n✗ step 37: the gradient became NaN in backward\n" in output
    assert row(output, "origin") == "aten::sqrt (SqrtBackward0), dL/dx of sqrt"
    assert row(output, "line").startswith("models/norm.py:42 in RMSNorm.forward encoder.layers.3.norm 42 │ return x /")
    assert row(output, "because").startswith("12 of 4096 inputs are exactly 0, where the slope of sqrt is infinite")
    assert row(output, "fix") == "torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)"
    assert row(output, "proof") == "with this op's gradient made finite, the whole step is finite"
    assert row(output, "samples") == "5, 12 of 32 do it alone"
    assert row(output, "spread") == "reached 31 of 148 parameters"
    assert row(output, "path") == "sqrt → div → mul → gradient of encoder.layers.0.fc.weight"
    assert row(output, "more") == "gradcheck rules sqrt-at-zero"


def test_the_running_part_of_the_line_is_underlined() -> None:
    lines = show(TRACES["trace-backward"], 80).splitlines()
    code = next(index for index, line in enumerate(lines) if "42 │" in line)
    start = lines[code].index("torch.sqrt")
    assert lines[code + 1] == " " * start + "^" * len(RMS_NORM.expression)
    assert "^" not in show(failing(sqrt(frame=replace(RMS_NORM, expression=RMS_NORM.code))))
    assert "^" not in show(failing(sqrt(frame=replace(RMS_NORM, expression="torch.sqrt(\n    x)"))))


def test_a_line_within_a_library_says_who_called() -> None:
    frame = replace(RMS_NORM, called_from=Location("train.py", 12))
    assert "called from train.py:12" in row(show(failing(sqrt(frame=frame))), "line")


def test_code_of_several_lines_keeps_its_shape() -> None:
    output = show(failing(sqrt(fix="if x:\n    y = 1\n\tz = 2")))
    assert "\n  fix        if x:\n                 y = 1\n                 z = 2\n" in output


@pytest.mark.parametrize(
    ("members", "event"),
    [
        ({"sink": "loss", "phase": "forward"}, "the loss became NaN in the forward pass"),
        ({"sink": "loss", "phase": "loss", "sink_kind": "inf"}, "the loss became infinite in the loss function"),
        ({"phase": "clip"}, "the gradient became NaN in clip_grad_norm_"),
        ({"sink": "buffer norm.running_var", "phase": "forward"}, "buffer norm.running_var became NaN in the forward"),
        ({"sink": "loss", "phase": "data", "kind": "inf"}, "the loss became NaN because the batch holds Inf"),
        ({"phase": "parameter"}, "the gradient became NaN because a parameter was NaN already"),
        ({"phase": "buffer", "kind": "inf"}, "the gradient became NaN because a buffer was infinite already"),
    ],
)
def test_titles_say_what_happened(members: dict[str, Any], event: str) -> None:
    assert f"✗ step 37: {event}" in show(failing(sqrt(**members)))


def test_the_micro_batch_is_named_where_it_means_something() -> None:
    trace = NanTrace(38, 37, (LOSS,), (sqrt(micro_batch=2),))
    assert "✗ step 37, micro-batch 2 of 4: the gradient" in show(make_trace(trace, accumulate=4))
    assert "micro-batch" not in show(make_trace(trace))
    stepping = replace(trace, origins=(sqrt(phase="optimizer"),))
    assert "micro-batch" not in show(make_trace(stepping, accumulate=4))


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"op": "", "source": "batch:[0]['x']"}, "batch[0]['x']"),
        ({"op": "", "source": "parameter:fc.weight"}, "parameter fc.weight"),
        ({"op": "", "source": ""}, "unknown"),
        ({"op": "aten::_softmax", "autograd_node": ""}, "aten::_softmax"),
        ({"op": "aten::mul", "autograd_node": "ClampBackward"}, "aten::mul in ClampBackward, an autograd.Function"),
    ],
)
def test_names_of_origins(members: dict[str, Any], name: str) -> None:
    assert row(show(failing(sqrt(**members))), "origin") == name


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ((), ""),
        ((7,), "7 of 32 does it alone"),
        (tuple(range(12)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more of 32 do it alone"),
        (tuple(range(32)), "each of the 32 does it alone"),
    ],
)
def test_samples(samples: tuple[int, ...], words: str) -> None:
    assert row(show(failing(sqrt(samples=samples))), "samples") == words


def test_what_is_not_proved_is_not_claimed() -> None:
    output = show(failing(sqrt(verified=False)))
    assert row(output, "proof").startswith("not verified: ")
    assert "the whole step is finite" not in output


def test_several_origins_are_proved_together() -> None:
    together = "with all 2 origins made finite, the whole step is finite"
    output = show(failing(sqrt(), softmax()))
    assert output.count(together) == 2
    assert "(1 of 2 independent origins)" in output
    assert output.splitlines()[-1].startswith("✗ 2 independent origins")
    assert together not in show(failing(sqrt(), softmax(verified=False)))


def test_without_a_cause_the_inputs_are_described() -> None:
    output = show(failing(sqrt(cause="", explanation="")))
    assert row(output, "because").startswith("no entry of the catalogue fits")
    assert row(output, "inputs") == "self: 4,096 float32 values from 0 to 3.25, 12 of them 0"
    assert row(output, "more") == ""


def test_verdicts_of_clean_runs() -> None:
    def verdict(trace: NanTrace, **run: Any) -> str:
        return show(make_trace(trace, **run)).splitlines()[-1]

    finite = "every loss, gradient, parameter and buffer finite"
    assert verdict(NanTrace(1000)) == f"✓ 1000 steps, {finite}"
    assert verdict(NanTrace(1)) == f"✓ 1 step, {finite}"
    assert verdict(NanTrace(1000, skipped=3)) == f"✓ 1000 steps, {finite} (3 skipped by the GradScaler)"
    assert verdict(NanTrace(0)) == "✗ no step was watched, so nothing can be said"
    broken = make_trace(NanTrace(3), error=GradcheckError("train.py raised"), ended="failed")
    assert show(broken).splitlines()[-1] == "✗ the run failed after 3 steps: everything was finite up to then"
    assert "train.py raised" in show(broken)


def test_header_says_how_it_was_run() -> None:
    output = show(TRACES["trace-two-origins"])
    assert "gradcheck nan-trace  train.py:build" in output
    facts = (
        "cpu, fp16, 38 of 1000 steps, 4 batches each, clipped at 1, 2 skipped by the GradScaler, seed 0, torch 2.13.0"
    )
    assert facts in output
    assert "118 steps (all the data), seed 0" in show(make_trace(NanTrace(118)))
    interrupted = show(make_trace(NanTrace(118), ended="interrupted", notes=("no optimizer",)))
    assert "118 of 1000 steps" in interrupted
    assert "note  the run was interrupted" in interrupted
    assert "note  no optimizer" in interrupted


def test_what_the_replay_did_not_show_is_said_with_what_was_seen() -> None:
    output = show(TRACES["trace-not-reproduced"])
    assert "✗ step 11: the gradient was NaN, but not when the step was replayed" in output
    assert row(output, "seen").startswith("the gradient of blocks.0.fc.weight: 384 NaN of 4,096 elements")
    assert row(output, "seen").endswith("and 3 more")
    assert "scatter_add on cuda adds in a different order each time" in row(output, "perhaps")
    assert row(output, "try")
    unknown = show(failing(reproduced=False))
    assert "the data loader" in row(unknown, "perhaps")
    assert row(unknown, "seen") == "the loss: NaN"


def test_an_origin_that_was_not_found_is_no_clean_run() -> None:
    output = show(failing())
    assert "✗ step 37: the loss was NaN; where it came from could not be told" in output
    assert "✓" not in output


def test_an_exception_of_torchs() -> None:
    output = show(TRACES["trace-raised"])
    assert "✗ step 37: torch raised an error over Inf made in the forward pass" in output
    assert row(output, "error").startswith("ValueError: Expected parameter scale")
    bare = show(make_trace(NanTrace(38, 37, error="RuntimeError: all elements of input should be between 0 and 1")))
    assert "✗ step 37: torch raised an error; where it came from could not be told" in bare
    assert row(bare, "error") == "RuntimeError: all elements of input should be between 0 and 1"


@pytest.mark.parametrize(
    ("error", "who"),
    [
        ("the code called sys.exit('stop: nan')", "the code called sys.exit"),
        ("the code raised ValueError: loss is nan", "the code raised ValueError"),
        ("lightning raised ValueError: nan", "lightning raised ValueError"),
        ("RuntimeError: a hook raised NaN", "torch raised an error"),
    ],
)
def test_an_error_is_told_of_who_raised_it(error: str, who: str) -> None:
    output = show(make_trace(NanTrace(38, 37, error=error)))
    assert f"✗ step 37: {who}; where it came from could not be told" in output
    assert row(output, "error") == error


def test_all_operations_with_the_place_where_it_began() -> None:
    assert "masked_fill" not in show(TRACES["trace-backward"])
    table = show(TRACES["trace-backward"], all_ops=True).partition("✗ finite values")[0]
    cells = [line.split() for line in table.splitlines()]
    assert ["•", "masked_fill", "encoder", "attention.py:88", "-1.5", "3.25", "512"] in cells
    assert ["softmax", "encoder", "attention.py:88", "0", "3.25", "12"] in cells
    assert ["✗", "div", "(origin)", "encoder.layers.3.norm", "norm.py:42", "0", "3.25", "384"] in cells
    assert ["mylib::scale", "norm.py:42", "0", "3.25", "384"] in cells, "not finite before"
    assert ["empty", "0", "3.25", "384"] in cells, "an allocator gives birth to nothing"
    assert [line for line in table.splitlines() if line in ("forward", "backward", "optimizer")] == [
        "forward",
        "backward",
        "optimizer",
    ]
    narrow = show(TRACES["trace-backward"], 60, all_ops=True)
    assert re.search("no room at 60 columns for: .*module", narrow)
    assert "encoder.layers.3.norm norm.py" not in narrow
    assert "no step was replayed" in show(TRACES["trace-clean"], all_ops=True)


def test_operations_of_micro_batches_stand_apart() -> None:
    tape = tuple(replace(operation(i, "aten::exp", MINUS_INF, FINITE), micro_batch=i // 2) for i in range(4))
    lines = show(failing(sqrt(), operations=tape), all_ops=True).splitlines()
    assert [line for line in lines if line.startswith("forward")] == [
        "forward of micro-batch 0",
        "forward of micro-batch 1",
    ]


# Findings and exit codes


def code_of(origin: NanOrigin) -> str:
    return failing(origin).diagnosis.findings[0].code


def test_codes_are_by_the_value_that_was_spoiled_or_came_in_spoiled() -> None:
    sinks = ("loss", "gradient of a.b", "parameter a.b", "buffer a.b")
    assert [code_of(sqrt(sink=sink)) for sink in sinks] == ["GC301", "GC302", "GC303", "GC303"]
    phases = ("data", "parameter", "buffer")
    assert [code_of(sqrt(sink="loss", phase=phase)) for phase in phases] == ["GC304", "GC303", "GC303"]


def test_a_finding_says_what_the_origin_says() -> None:
    (finding,) = TRACES["trace-backward"].diagnosis.findings
    assert (finding.code, finding.severity, finding.step) == ("GC302", Severity.ERROR, 37)
    assert finding.message.startswith("the gradient became NaN in backward: 12 of 4096 inputs")
    assert finding.hint == "torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)"
    assert finding.layer == "encoder.layers.3.norm"
    assert finding.location == Location("models/norm.py", 42)
    assert finding.evidence["cause"] == "sqrt-at-zero"
    assert finding.evidence["verified"] is True
    assert [finding.code for finding in TRACES["trace-two-origins"].diagnosis.findings] == ["GC301", "GC302"]


@pytest.mark.parametrize(
    "name", [name for name in TRACES if name not in ("trace-clean", "trace-skipped", "trace-baseline-kept")]
)
def test_whatever_was_not_finite_fails_the_run(name: str) -> None:
    assert TRACES[name].exit_code == 1
    assert TRACES[name].diagnosis.findings


def test_a_clean_run_passes() -> None:
    assert TRACES["trace-clean"].exit_code == TRACES["trace-skipped"].exit_code == 0
    assert TRACES["trace-clean"].diagnosis.findings == ()


def test_a_failed_run_is_exit_code_2_whatever_was_found() -> None:
    assert make_trace(NanTrace(3), error=GradcheckError("it broke")).exit_code == 2


def judge(**chosen: Any) -> Report:
    return make_trace(NanTrace(38, 37, (LOSS,), (sqrt(),)), settings=Settings(**chosen))


def test_the_exit_code_follows_the_settings_and_says_so() -> None:
    assert judge(fail_on="warning").exit_code == 1
    for chosen in (
        {"fail_on": "never"},
        {"ignore": ("GC3",)},
        {"select": ("GC1", "GC301")},
        {"severity": {"GC302": Severity.WARNING}},
    ):
        report = judge(**chosen)
        assert report.exit_code == 0
        assert "became NaN in backward" in show(report)
        assert "exit code 0 all the same" in show(report)
    assert "exit code" not in show(judge())


def test_a_code_that_is_none_is_no_silent_pass() -> None:
    with pytest.raises(ConfigError, match="there is no rule GC999"):
        judge(select=("GC999",))


# The folder for --save-repro


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    check_directory(tmp_path)
    check_directory(tmp_path / "new")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "no" / "where", tmp_path / "file" / "below"):
        with pytest.raises(OutputError) as caught:
            check_directory(path)
        assert str(path) in caught.value.message
        assert caught.value.hint
