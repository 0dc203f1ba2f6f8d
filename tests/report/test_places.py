"""Where a finding belongs: its own line, its layer's class, the entrypoint."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradcheck_cli.records import Finding, Location, Report, Severity
from gradcheck_cli.report.places import place_of
from tests.diagnose.recordings import make_recording
from tests.report.reports import make_report

ENTRYPOINT = Location("train.py", 20)
SOURCES = {"": Location("net.py", 1), "blocks.0": Location("net.py", 30), "library": Location("/lib/conv.py", 9)}


@pytest.fixture
def report() -> Report:
    """A model with blocks of a class of its own, and a part from a library."""
    names = ["blocks.0.fc", "blocks.1.fc", "library.conv", "head"]
    recording = make_recording(steps=1, parameters={f"{name}.weight": (2, 2) for name in names}, location=ENTRYPOINT)
    known = {module.name: module for module in recording.modules}
    for name, source in SOURCES.items():
        module = known.get(name) or replace(recording.modules[0], name=name, probe=None)
        known[name] = replace(module, source=source)
    return make_report(replace(recording, modules=tuple(known.values())))


def finding(layer: str | None, location: Location | None = None) -> Finding:
    return Finding("GC101", "some-rule", Severity.ERROR, "sick", "", layer=layer, location=location)


@pytest.mark.parametrize(
    ("layer", "own", "expected"),
    [
        ("head", Location("other.py", 5), Location("other.py", 5)),
        (None, Location("other.py", 5), Location("other.py", 5)),
        ("blocks.0.fc", None, Location("net.py", 30)),
        ("blocks.0.fc.weight", ENTRYPOINT, Location("net.py", 30)),
        ("blocks.*.fc", ENTRYPOINT, Location("net.py", 30)),
        ("head", ENTRYPOINT, Location("net.py", 1)),
        ("", None, Location("net.py", 1)),
        ("library.conv", None, Location("net.py", 1)),
        ("library.conv", Location("/lib/conv.py", 9), Location("net.py", 1)),
        (None, None, ENTRYPOINT),
        (None, ENTRYPOINT, ENTRYPOINT),
    ],
)
def test_the_nearest_line_that_is_the_users(
    report: Report, layer: str | None, own: Location | None, expected: Location
) -> None:
    assert place_of(finding(layer, own), report) == expected


def test_without_an_entrypoint_the_targets_file(report: Report) -> None:
    def place(target: str) -> Location | None:
        run = replace(report.run, location=None, target=target)
        return place_of(finding(None), replace(report, run=run, recording=None))

    assert place("models/net.py:build") == Location("models/net.py", 1)
    assert place("train.py --epochs 3") == Location("train.py", 1)
    assert place("norms.csv") == Location("norms.csv", 1)
    assert place("package.module:build") is None


def test_a_line_of_a_library_is_better_than_none(report: Report) -> None:
    bare = replace(report, run=replace(report.run, location=None, target="a:b"), recording=None)
    assert place_of(finding(None, SOURCES["library"]), bare) == SOURCES["library"]
