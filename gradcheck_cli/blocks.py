"""Findings by what caused them: each root cause with what it explains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradcheck_cli.records import Finding


@dataclass(frozen=True)
class Block:
    """Findings linked with one another: `roots` have no cause among them, `explained` follow from the roots."""

    roots: tuple[Finding, ...]
    explained: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, causes before what they explain."""
        return self.roots + self.explained

    @property
    def severity_rank(self) -> int:
        """That of the most severe of them."""
        return max(finding.severity.rank for finding in self.findings)


def make_blocks(findings: Iterable[Finding]) -> list[Block]:
    """Each finding in one block, which stands where its most severe finding would; links to others are none."""
    blocks = [arrange(group) for group in gather(findings)]
    return sorted(blocks, key=lambda block: min(urgency(finding) for finding in block.findings))


def urgency(finding: Finding) -> tuple[int, str]:
    """What findings are sorted by: severity, then code."""
    return -finding.severity.rank, finding.code


def gather(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Groups of findings that are linked, directly or by way of others."""
    groups: list[list[Finding]] = []
    for finding in findings:
        links = {finding.fingerprint, *finding.because, *finding.explains}
        joined: list[Finding] = []
        apart: list[list[Finding]] = []
        for group in groups:
            if any(other.fingerprint in links for other in group):
                joined += group
            else:
                apart.append(group)
        groups = [*apart, [*joined, finding]]
    return groups


def arrange(group: Sequence[Finding]) -> Block:
    """Roots and explained, the most severe first as far as causes come before what they explain."""
    present = {finding.fingerprint for finding in group}
    ordered = sorted(group, key=urgency)
    roots = [finding for finding in ordered if not present.intersection(finding.because)]
    explained = [finding for finding in ordered if present.intersection(finding.because)]
    placed, follows = {finding.fingerprint for finding in roots}, []
    while explained:
        ready = (i for i, finding in enumerate(explained) if placed.issuperset(present.intersection(finding.because)))
        follows.append(explained.pop(next(ready)))
        placed.add(follows[-1].fingerprint)
    return Block(tuple(roots), tuple(follows))
