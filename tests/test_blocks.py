"""Findings by what caused them: nothing is lost, and causes come before what they explain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.blocks import make_blocks
from gradcheck_cli.records import Finding, Severity

SEVERITIES = tuple(Severity)


def make_finding(number: int, severity: Severity, because: list[int], explains: list[int]) -> Finding:
    return Finding(
        f"GC{100 + number}",
        "a-rule",
        severity,
        "message",
        "hint",
        because=tuple(f"GC{100 + one}:" for one in because),
        explains=tuple(f"GC{100 + one}:" for one in explains),
    )


@st.composite
def linked_findings(draw: st.DrawFn) -> list[Finding]:
    """Up to eight findings, each explained by some of those before it, in any order."""
    number = draw(st.integers(1, 8))
    because = [draw(st.sets(st.integers(0, max(0, n - 1)), max_size=2)) if n else set() for n in range(number)]
    findings = [
        make_finding(
            n,
            draw(st.sampled_from(SEVERITIES)),
            sorted(because[n]),
            [later for later in range(number) if n in because[later]],
        )
        for n in range(number)
    ]
    return draw(st.permutations(findings))


@given(linked_findings())
def test_each_finding_stands_once_behind_its_causes(findings: list[Finding]) -> None:
    shown = [finding for block in make_blocks(findings) for finding in block.findings]
    assert sorted(one.code for one in shown) == sorted(one.code for one in findings)
    for place, finding in enumerate(shown):
        assert set(finding.because) <= {one.fingerprint for one in shown[:place]}


@given(linked_findings())
def test_links_stay_within_a_block_whose_roots_have_no_cause(findings: list[Finding]) -> None:
    for block in make_blocks(findings):
        inside = {finding.fingerprint for finding in block.findings}
        assert all(inside.issuperset(finding.because) for finding in block.findings)
        assert not any(root.because for root in block.roots)
        assert all(finding.because for finding in block.explained)


@given(linked_findings())
def test_the_block_with_the_most_severe_finding_comes_first(findings: list[Finding]) -> None:
    ranks = [max(one.severity.rank for one in block.findings) for block in make_blocks(findings)]
    assert ranks == sorted(ranks, reverse=True)


def test_unlinked_findings_come_by_severity_and_code() -> None:
    findings = [
        make_finding(number, severity, [], [])
        for number, severity in ((3, Severity.INFO), (2, Severity.ERROR), (1, Severity.INFO), (4, Severity.ERROR))
    ]
    assert [block.roots[0].code for block in make_blocks(findings)] == ["GC102", "GC104", "GC101", "GC103"]


def test_a_cause_that_is_not_there_makes_a_root() -> None:
    (block,) = make_blocks([make_finding(1, Severity.ERROR, because=[9], explains=[])])
    assert block.roots
    assert not block.explained
