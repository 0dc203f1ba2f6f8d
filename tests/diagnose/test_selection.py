from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck_cli.diagnose.selection import (
    by_module,
    by_pattern,
    by_topmost_module,
    enclosing,
    in_execution_order,
    is_within,
    pattern,
)
from gradcheck_cli.records import ParameterInfo
from tests.diagnose.recordings import make_parameters, make_recording

NAMES = ["scale", "stem.weight", "blocks.0.fc.weight", "blocks.0.fc.bias", "blocks.0.norm.weight", "blocks.1.fc.weight"]


def infos() -> Mapping[str, ParameterInfo]:
    return {p.name: p for p in make_parameters(dict.fromkeys(NAMES, (2,)), (), ())}


def topmost(chosen: list[str]) -> dict[str, list[str]]:
    everything = infos()
    groups = by_topmost_module([everything[name] for name in chosen], everything.values())
    return {layer: [p.name for p in group] for layer, group in groups.items()}


def test_by_module_keeps_the_order() -> None:
    groups = by_module(infos().values())
    assert list(groups) == ["", "stem", "blocks.0.fc", "blocks.0.norm", "blocks.1.fc"]
    assert [p.name for p in groups["blocks.0.fc"]] == ["blocks.0.fc.weight", "blocks.0.fc.bias"]


def test_the_topmost_module_is_the_outermost_that_is_chosen_as_a_whole() -> None:
    assert list(topmost(NAMES[2:])) == ["blocks"]
    assert list(topmost(NAMES[2:5])) == ["blocks.0"]
    assert list(topmost(NAMES[2:4])) == ["blocks.0.fc"]
    assert list(topmost(NAMES[2:3])) == ["blocks.0.fc.weight"]


def test_the_whole_model_is_named_by_its_parts() -> None:
    assert list(topmost(NAMES)) == ["scale", "stem", "blocks"]


@settings(deadline=None)
@given(st.sets(st.sampled_from(NAMES)))
def test_each_chosen_parameter_is_in_exactly_one_group_and_no_other_is(chosen: set[str]) -> None:
    groups = topmost([name for name in NAMES if name in chosen])
    assert sorted(name for group in groups.values() for name in group) == sorted(chosen)
    for layer in groups:
        assert {name for name in NAMES if is_within(name, layer)} <= chosen


def test_names() -> None:
    assert enclosing("a.b.c") == ["a", "a.b", "a.b.c"]
    assert enclosing("") == []
    assert is_within("a.b", "a")
    assert not is_within("ab", "a")
    assert pattern("blocks.12.fc2.weight") == "blocks.*.fc*.weight"


def test_by_pattern_leaves_single_names_as_they_are() -> None:
    assert by_pattern(["blocks.0.fc", "head", "blocks.1.fc", "conv1"]) == {
        "blocks.*.fc": ["blocks.0.fc", "blocks.1.fc"],
        "head": ["head"],
        "conv1": ["conv1"],
    }


def test_execution_order_is_not_that_of_registration() -> None:
    recording = make_recording(probed=["fc2"], modules={"fc1": "Linear"})
    assert in_execution_order(recording, ["fc2", "fc1"]) == ["fc1", "fc2"]
    swapped = make_recording(probed=["fc2", "fc1"])
    assert in_execution_order(swapped, ["fc1", "fc2"]) == ["fc2", "fc1"]
