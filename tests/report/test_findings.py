"""Findings as a person reads them: a root cause in full, and below it in short what it explains."""

from __future__ import annotations

import pytest

from gradcheck_cli.records import Finding, Severity
from gradcheck_cli.report.findings import finding_list
from gradcheck_cli.report.lines import to_string
from gradcheck_cli.report.table import render_table
from gradcheck_cli.report.view import View
from tests.diagnose.recordings import make_recording
from tests.report.reports import REPORTS, make_report

WIDE = View(200)


def make(code: str, severity: str = "error", layer: str | None = None, hint: str = "", **links: list[str]) -> Finding:
    return Finding(
        code,
        "a-rule",
        Severity(severity),
        f"message of {code} {layer}",
        hint or f"hint of {code}",
        layer=layer,
        because=tuple(links.get("because", ())),
        explains=tuple(links.get("explains", ())),
    )


def show(*findings: Finding) -> list[str]:
    return to_string(finding_list(findings, WIDE), WIDE).splitlines()


ROOT = make("GC602", "warning", "a", explains=["GC101:b", "GC108:"])
EFFECT = make("GC101", "error", "b", because=["GC602:a"])
TINY = make("GC108", "info", because=["GC602:a"])


def test_a_root_cause_has_the_fix_and_what_it_explains_has_none() -> None:
    assert show(EFFECT, TINY, ROOT) == [
        "▲ warning  GC602 a-rule  a",
        "  message of GC602 a",
        "  → fix: hint of GC602",
        "  explains",
        "  ✗ error  GC101 a-rule  b",
        "    message of GC101 b",
        "  • info  GC108 a-rule",
        "    message of GC108 None",
    ]


def test_blocks_are_apart() -> None:
    lines = show(make("GC106"), ROOT, EFFECT, TINY, make("GC103"))
    assert [line for line, before in zip(lines[1:], lines, strict=False) if not before] == [
        "✗ error  GC103 a-rule",
        "✗ error  GC106 a-rule",
    ]


def test_like_findings_that_a_cause_explains_share_a_line() -> None:
    zeros = [make("GC104", "error", layer, because=["GC603:c"]) for layer in ("a", "b", "")]
    lines = show(make("GC603", "error", "c", explains=["GC104:a", "GC104:b", "GC104:"]), *zeros)
    assert lines[-2:] == ["  ✗ error  GC104 a-rule  a, b, (model)", "    message of GC104 a (and 2 like it)"]


def test_where_there_are_several_causes_each_is_named() -> None:
    causes = [make("GC602", "error", "a", explains=["GC101:b"]), make("GC603", "error", "c", explains=["GC101:b"])]
    lines = show(*causes, make("GC101", "error", "b", because=["GC602:a", "GC603:c"]))
    assert [line for line in lines if line.startswith("  → fix")] == [
        "  → fix: hint of GC602",
        "  → fix: hint of GC603",
    ]
    assert lines[-1] == "    message of GC101 b (because GC602, GC603)"
    assert lines.count("") == 0


def test_like_neighbours_that_explain_nothing_say_their_hint_once() -> None:
    lines = show(*[make("GC306", "warning", layer, "lower it") for layer in "abc"])
    assert lines.count("  → fix: lower it") == 1
    assert lines[-1] == "  → fix: lower it"


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([ROOT, EFFECT, TINY], "✗ 1 error, 1 warning from 1 cause in 2 layers over 4 steps (1 info)"),
        ([ROOT, EFFECT, make("GC106")], "✗ 2 errors, 1 warning from 2 causes in 2 layers over 4 steps"),
        ([make("GC103"), make("GC106")], "✗ 2 errors in 2 layers over 4 steps"),
        (
            [make("GC607", "info", explains=["GC606:"]), make("GC606", because=["GC607:"])],
            "✗ 1 error in 2 layers over 4 steps (1 info)",
        ),
        ([make("GC101", "info", explains=["GC108:"]), make("GC108", "info", because=["GC101:"])], "✓ gradients reach"),
    ],
)
def test_the_verdict_counts_causes_where_they_are_fewer_than_faults(findings: list[Finding], verdict: str) -> None:
    report = make_report(make_recording(steps=4), findings)
    assert render_table(report, WIDE).splitlines()[-1].startswith(verdict)


def test_a_deep_network_gives_one_block() -> None:
    output = render_table(REPORTS["linked"], View(140))
    block = output[output.index("▲ warning  GC602") :].partition("\n\n")[0]
    assert block.count("→ fix") == 1
    for rule in ("GC101 vanishing-gradient  layers.*", "GC108 tiny-gradient  layers.0, layers.1, layers.2"):
        assert f"\n  {'✗ error' if 'GC101' in rule else '• info'}  {rule}\n" in block
