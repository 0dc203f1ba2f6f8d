"""One root cause, one headline: findings that explain one another are linked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gradcheck_cli.blocks import make_blocks
from gradcheck_cli.diagnose.explanations import explains
from gradcheck_cli.diagnose.extent import extent, measure_extents
from gradcheck_cli.diagnose.link_conditions import Placed
from gradcheck_cli.records import Finding, Recording

Links = Mapping[str, Sequence[str]]
"""Fingerprints of findings, and of the causes of each."""


def link(findings: Sequence[Finding], recording: Recording) -> tuple[Finding, ...]:
    """The findings with `because` and `explains`, each root cause before what it explains.

    Links are direct ones: of two causes of which one explains the other, only the nearer counts. What hangs together
    stands together, where the most severe of it would stand; else the order is by severity, then by code.
    """
    because = keep_nearest(find_causes(findings, recording))
    linked = [
        replace(
            finding,
            because=tuple(because[finding.fingerprint]),
            explains=tuple(effect for effect, causes in because.items() if finding.fingerprint in causes),
        )
        for finding in findings
    ]
    return tuple(finding for block in make_blocks(linked) for finding in block.findings)


def find_causes(findings: Sequence[Finding], recording: Recording) -> dict[str, list[str]]:
    """All causes of each finding, never in a circle."""
    causes: dict[str, list[str]] = {finding.fingerprint: [] for finding in findings}
    extents = measure_extents(recording)
    placed = [Placed(finding, extent(finding, extents)) for finding in findings]
    for effect in placed:
        for cause in placed:
            own, other = effect.finding.fingerprint, cause.finding.fingerprint
            if explains(cause, effect, recording) and own not in (other, *trace(other, causes)):
                causes[own].append(other)
    return causes


def trace(fingerprint: str, causes: Links) -> set[str]:
    """All causes of a finding, also by way of others."""
    found: set[str] = set()
    ahead = [*causes[fingerprint]]
    while ahead:
        cause = ahead.pop()
        if cause not in found:
            found.add(cause)
            ahead += causes[cause]
    return found


def keep_nearest(causes: Links) -> dict[str, list[str]]:
    """Without the causes of which another cause of the same finding follows."""
    return {
        effect: [one for one in dict.fromkeys(direct) if not any(one in trace(other, causes) for other in direct)]
        for effect, direct in causes.items()
    }
