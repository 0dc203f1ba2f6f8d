"""Baselines as files: what is written is read back, and what is no baseline is refused with its reason."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli import baseline_file
from gradcheck_cli.baseline import (
    AcceptedFinding,
    Baseline,
    KnownFinding,
    LayerMeasure,
    Measures,
    NormMeasure,
    RunConditions,
    Section,
    ShareMeasure,
    SlopeMeasure,
)
from gradcheck_cli.baseline_file import BaselineError
from gradcheck_cli.records import Severity

RUN = RunConditions(50, "fp32", 1, True)
WHOLE = Section(
    command="profile",
    model="critic",
    run=RUN,
    findings=(KnownFinding("GC101:*", Severity.ERROR, "it shrinks", ("0", "2"), 1.5),),
    accepted=(AcceptedFinding("GC103:aux", "kept for export", ("aux.weight",)),),
    measures=Measures(
        layers=(
            LayerMeasure("0", "Linear", ((4, 3), (4,)), -0.25, 0.125, 1.0, 50),
            LayerMeasure("aux", "Linear", (), None, 0.0, 0.0, 50),
        ),
        slopes=(SlopeMeasure("*", "Linear", "0", "6", 2.5, 0.5),),
        shares=(ShareMeasure("dead", "0", "relu", 0.5, 0.25),),
        clipping=NormMeasure(1.5, None, 2.0),
    ),
)


def test_everything_comes_back() -> None:
    baseline = Baseline((WHOLE, replace(WHOLE, command="recommend-clip", model="", measures=Measures())))
    text = baseline_file.dumps(baseline)
    assert baseline_file.loads(text) == baseline
    assert json.loads(text)["format_version"] == 1
    assert text.isascii()


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(gradient=st.none() | numbers, noise=numbers, name=st.text(), reason=st.text())
def test_what_was_read_is_written_as_it_was(gradient: float | None, noise: float, name: str, reason: str) -> None:
    layer = LayerMeasure(name, "Linear", ((1,),), gradient, noise, 1.0, 3)
    section = replace(WHOLE, accepted=(AcceptedFinding(name, reason),), measures=Measures(layers=(layer,)))
    text = baseline_file.dumps(Baseline((section,)))
    assert baseline_file.dumps(baseline_file.loads(text)) == text


def test_a_number_has_six_digits_and_a_layer_one_line() -> None:
    layers = tuple(LayerMeasure(f"layers.{n}", "Linear", ((8, 8), (8,)), math.pi * n, 0.1, 1.0, 50) for n in range(9))
    lines = baseline_file.dumps(Baseline((replace(WHOLE, measures=Measures(layers=layers)),))).splitlines()
    assert len([line for line in lines if '"layers.' in line]) == 9
    assert any('"gradient": 3.14159,' in line for line in lines)


def test_every_kind_of_value_in_a_section_can_be_read() -> None:
    def kinds(value: Any) -> set[str]:
        if isinstance(value, tuple):
            return set().union(*map(kinds, value))
        if not is_dataclass(value):
            return set()
        own = {str(field.type) for field in fields(value)}
        return own.union(*(kinds(getattr(value, field.name)) for field in fields(value)))

    assert kinds(Baseline((WHOLE,))) == set(baseline_file.READERS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": 2}, "its format 2 is newer than this gradcheck reads (1)"),
        ({"format_version": "1"}, "this is no baseline"),
        ({"sections": {}}, "sections must be a list, not {}"),
        ({"sections": [3]}, "sections[0] must be a mapping, not 3"),
        ({"sections": [{"command": "profile", "model": ""}]}, "sections[0].run is missing"),
        ({"section": []}, "unknown member section"),
    ],
)
def test_what_is_no_baseline_is_refused_with_its_place(change: dict[str, Any], reason: str) -> None:
    text = json.dumps({"format_version": 1, "sections": [], **change})
    with pytest.raises(BaselineError) as caught:
        baseline_file.loads(text)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("findings", 0, "severity"), "bad", "findings[0].severity must be error, warning or info, not 'bad'"),
        (("run", "steps"), "50", "run.steps must be a whole number, not '50'"),
        (("run", "steps"), True, "run.steps must be a whole number, not True"),
        (("measures", "layers", 0, "noise"), None, "layers[0].noise must be a number, not None"),
        (("measures", "layers", 0, "shapes"), [[4.5]], "layers[0].shapes[0][0] must be a whole number, not 4.5"),
        (("accepted", 0, "reason"), 3, "accepted[0].reason must be a text, not 3"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(path: tuple[Any, ...], value: Any, reason: str) -> None:
    plain = json.loads(baseline_file.dumps(Baseline((WHOLE,))))
    inner = plain["sections"][0]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(BaselineError) as caught:
        baseline_file.loads(json.dumps(plain))
    assert reason in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format_version": NaN}', b"3"])
def test_a_file_that_is_none_says_what_to_type(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(BaselineError) as caught:
        baseline_file.load(path)
    assert str(path) in caught.value.message
    assert f"--write-baseline {path}" in caught.value.hint


def test_a_missing_file_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(BaselineError) as caught:
        baseline_file.load(tmp_path / "none.json")
    assert "No such file" in caught.value.message
    assert "--write-baseline" in caught.value.hint
