"""Workflow commands: read as the runner reads them, never more than ten."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.records import Finding, Location, Report, Severity
from gradcheck_cli.report.github import render_github
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.advices import ADVICES
from tests.report.reports import REPORTS, make_report
from tests.report.traces import TRACES

ALL = {**REPORTS, **TRACES, **ADVICES}


@dataclass(frozen=True)
class Command:
    name: str
    properties: dict[str, str]
    message: str


def read(line: str) -> Command | None:
    """As actions/runner does: a line is a command if it begins with `::`, or has `##[` anywhere."""
    assert "##[" not in line or line.lstrip().startswith("::")
    if not line.lstrip().startswith("::"):
        return None
    head, _, message = line.lstrip()[2:].partition("::")
    name, _, properties = head.partition(" ")
    pairs = (pair.split("=", 1) for pair in properties.split(",") if pair)
    return Command(name, {key: unescape(value, "%3A", "%2C") for key, value in pairs}, unescape(message))


def unescape(text: str, *more: str) -> str:
    for code in (*more, "%0D", "%0A", "%25"):
        text = text.replace(code, chr(int(code[1:], 16)))
    return text


def split(report: Report, view: View | None = None) -> tuple[list[Command], list[str]]:
    """The commands, and the other lines."""
    lines = render_github(report, view or View()).split("\n")
    assert lines.pop() == ""
    commands = [command for line in lines if (command := read(line))]
    return commands, [line for line in lines if not read(line)]


def sick(*findings: Finding) -> Report:
    return make_report(make_recording(steps=2), findings)


def error(number: int, line: int | None = None) -> Finding:
    layer, place = f"fc{number}", Location("net.py", number if line is None else line)
    return Finding("GC101", "some-rule", Severity.ERROR, f"{layer} is sick", "mend it", layer=layer, location=place)


@pytest.mark.parametrize("name", ALL)
def test_at_most_ten_commands_then_the_verdict(name: str) -> None:
    commands, lines = split(ALL[name])
    assert len(commands) <= 10
    assert len(lines) == 1 + len(ALL[name].others)
    assert all(line.startswith(f"gradcheck {ALL[name].command} ") for line in lines)


def test_severities_and_properties() -> None:
    (first, second, third), _ = split(REPORTS["sick"])
    assert (first.name, second.name, third.name) == ("error", "warning", "notice")
    assert first.properties == {"file": "models/cnn.py", "line": "34", "title": "GC101 vanishing-gradient"}
    assert first.message.startswith("stages.*.*.conv: the gradient with respect to the outputs shrinks")
    assert "\nfix: initialise with" in first.message


@pytest.mark.parametrize(
    ("layer", "message", "shown"),
    [
        ("fc", "fc.weight is sick", "fc.weight is sick"),
        ("0", "10 of 20 are 0.5", "0: 10 of 20 are 0.5"),
        ("fc.0", "it is sick", "fc.0: it is sick"),
        ("", "it is sick", "it is sick"),
    ],
)
def test_a_message_that_does_not_name_its_layer_gets_it(layer: str, message: str, shown: str) -> None:
    (command,), _ = split(sick(replace(error(1), layer=layer, message=message, hint="")))
    assert command.message == shown


def test_like_findings_at_one_place_are_one_command() -> None:
    (command,), _ = split(sick(*(error(number, line=3) for number in range(38))))
    assert "fc0 is sick (and 37 like it: fc1, fc2, fc3, fc4, fc5, …)" in command.message


def test_like_findings_at_few_places_are_a_command_each() -> None:
    commands, _ = split(sick(error(1), error(2)))
    assert [command.properties["line"] for command in commands] == ["1", "2"]


def test_where_places_are_too_many_a_rule_is_one_command() -> None:
    (command,), _ = split(sick(*map(error, range(1, 12))))
    assert "(and 10 like it" in command.message


def test_where_rules_are_too_many_the_last_command_names_the_rest() -> None:
    infos = [replace(error(1), code=f"GC1{number:02}", severity=Severity.INFO) for number in range(20)]
    commands, _ = split(sick(*infos, error(5)))
    assert len(commands) == 10
    assert commands[0].name == "error"
    assert commands[-1].properties["title"] == "12 more findings"
    assert all(f"GC1{number:02}" in commands[-1].message for number in range(8, 20) if number != 1)


def test_a_failed_run_is_an_error() -> None:
    (command,), (line,) = split(REPORTS["failed"])
    assert command.name == "error"
    assert command.message.endswith("ValueError: bad [batch]")
    assert "the run failed" in line


def test_with_a_baseline_what_is_new_is_annotated_and_nothing_else() -> None:
    commands, _ = split(REPORTS["baseline"])
    assert [command.properties["title"] for command in commands] == ["GC101 vanishing-gradient", "GC306 weight-blowup"]
    assert "like it" not in commands[1].message
    assert split(REPORTS["baseline-kept"])[0] == []


def test_models_beside_the_first_are_annotated_too() -> None:
    commands, lines = split(REPORTS["several"])
    assert [command.name for command in commands] == ["error", "warning", "notice"]
    assert ["discriminator" in lines[0], "generator" in lines[1]] == [True, True]


def test_files_are_named_from_the_root_of_the_repository() -> None:
    (command,), _ = split(sick(error(3)), View(folder="training/vision"))
    assert command.properties["file"] == "training/vision/net.py"


names = st.text(st.sampled_from("ab:,%\r\n=#[]\t\u2028\x85\x0b\ud8000ADC") | st.characters())


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("ab:,%\r\n=#[]\t\u2028\x85\x0b\ud8000ADC") | st.characters()), unicode=st.booleans()
)
def test_no_name_ends_a_command_or_begins_one(text: str, unicode: bool) -> None:
    place = Location(f"a{text}.py", 7)
    finding = Finding("GC101", "some-rule", Severity.ERROR, text, text, layer=text, location=place)
    report = sick(finding)
    view = View(unicode=unicode)
    for one in (report, replace(report, run=replace(report.run, target=text, model=text), error=f"x{text}")):
        commands, lines = split(one, view)
        assert len(commands) == 1 + bool(one.error)
        assert len(lines) == 1
        assert (
            commands[-1].properties
            == {
                "file": view.prose(f"a{text}.py"),
                "line": "7",
                "title": "GC101 some-rule",
            }
            or "/" in text
        )
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", commands[-1].message)
