"""Which findings of a run its baseline does not know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from gradcheck_cli.baseline import AcceptedFinding, KnownFinding, Section
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.baseline.margins import MARGIN, beyond
from gradcheck_cli.diagnose.extent import layers_of
from gradcheck_cli.records import Finding

Remembered = TypeVar("Remembered", bound="KnownFinding | AcceptedFinding")
NEW, KNOWN, ACCEPTED, UNCERTAIN = "new", "known", "accepted", "uncertain"
ON_THEIR_OWN = ("GC801", "GC802", "GC803")
"""Shifts have their noise in them already, and may be more than what explains them."""
BY_SLOPE = ("GC101", "GC102", "GC601")
BY_SHARE: Mapping[str, str] = {"GC602": "saturated", "GC603": "dead"}
"""Rules that decide by what a baseline measures as well: how far that has moved tells more than a threshold."""


def remember(finding: Finding) -> KnownFinding:
    """A finding as a baseline holds it."""
    return KnownFinding(
        fingerprint=finding.fingerprint,
        severity=finding.severity,
        message=finding.message,
        layers=tuple(layers_of(finding)),
        beyond=beyond(finding),
    )


def sort_out(findings: Sequence[Finding], section: Section, change: Change) -> dict[str, str]:
    """The state of each finding, by its fingerprint: NEW, KNOWN, ACCEPTED or UNCERTAIN.

    Uncertain is what the baseline does not have and another seed could bring about: the deciding number lies near its
    threshold or has not moved, or the finding follows from one that is known. What follows from an accepted one is
    accepted with it.
    """
    states = {finding.fingerprint: judge(finding, section, change) for finding in findings}
    for finding in findings:
        if states[finding.fingerprint] == NEW and finding.code not in ON_THEIR_OWN:
            causes = {states[one.fingerprint] for one in find_causes(finding, findings)}
            states[finding.fingerprint] = ACCEPTED if ACCEPTED in causes else UNCERTAIN if KNOWN in causes else NEW
    return states


def find_causes(finding: Finding, findings: Iterable[Finding]) -> list[Finding]:
    """What explains a finding and is no less severe."""
    return [
        one for one in findings if one.fingerprint in finding.because and one.severity.rank >= finding.severity.rank
    ]


def judge(finding: Finding, section: Section, change: Change) -> str:
    """The state of one finding, by itself."""
    known = find_remembered(finding, section.findings, change)
    if find_accepted(finding, known, section, change):
        return ACCEPTED
    if known and known.severity.rank >= finding.severity.rank:
        return KNOWN
    if known:
        return NEW if has_worsened(finding, known, change) else KNOWN
    return NEW if is_certain(finding, change) else UNCERTAIN


def find_accepted(
    finding: Finding, known: KnownFinding | None, section: Section, change: Change
) -> AcceptedFinding | None:
    """The accepted finding that this is, by itself or by what it was called when the baseline was written."""
    direct = find_remembered(finding, section.accepted, change)
    if direct or known is None:
        return direct
    return next((one for one in section.accepted if one.fingerprint == known.fingerprint), None)


def give_reasons(findings: Sequence[Finding], section: Section, change: Change) -> dict[str, str]:
    """Why each finding was accepted, or one that explains it, by its fingerprint."""
    reasons: dict[str, str] = {}
    for finding in findings:
        for one in (finding, *find_causes(finding, findings)):
            known = find_remembered(one, section.findings, change)
            if accepted := find_accepted(one, known, section, change):
                reasons.setdefault(finding.fingerprint, accepted.reason)
    return reasons


def find_remembered(finding: Finding, remembered: Iterable[Remembered], change: Change) -> Remembered | None:
    """The one of the same rule on the same layer, or else on any of its layers."""
    same = [one for one in remembered if one.fingerprint.partition(":")[0] == finding.code]
    exact = [one for one in same if change.matching.translate(layer_of(one)) == (finding.layer or "")]
    layers = set(layers_of(finding))
    near = (one for one in same if layers.intersection(map(change.matching.translate, one.layers)))
    return exact[0] if exact else next(near, None)


def find_counterpart(
    remembered: KnownFinding | AcceptedFinding, findings: Iterable[Finding], change: Change
) -> Finding | None:
    """The finding of the run that is the remembered one."""
    return next((one for one in findings if find_remembered(one, [remembered], change)), None)


def layer_of(remembered: KnownFinding | AcceptedFinding) -> str:
    """The layer in the fingerprint, as it was called then."""
    return remembered.fingerprint.partition(":")[2]


def has_worsened(finding: Finding, known: KnownFinding, change: Change) -> bool:
    """Whether a finding that is more severe now has a deciding number to match."""
    moved = has_moved(finding, change)
    if moved is not None:
        return moved
    now = beyond(finding)
    return now is None or known.beyond is None or now - known.beyond > MARGIN


def is_certain(finding: Finding, change: Change) -> bool:
    """Whether another seed would find it, too, as far as its deciding number tells."""
    moved = has_moved(finding, change)
    if moved is not None:
        return moved
    margin = beyond(finding)
    return margin is None or margin > MARGIN


def has_moved(finding: Finding, change: Change) -> bool | None:
    """Whether the measure that decided has moved beyond its tolerance; None where the baseline lacks it."""
    if finding.code in BY_SLOPE:
        group = finding.evidence.get("group")
        moves = [abs(b.decades - a.decades) > change.slope_limit(a, b) for a, b in change.slopes() if b.group == group]
    elif finding.code in BY_SHARE:
        layers, what = layers_of(finding), BY_SHARE[finding.code]
        pairs = [(a, b) for a, b in change.shares() if b.what == what and b.layer in layers]
        moves = [b.share - a.share > change.share_limit(a, b) for a, b in pairs]
    else:
        moves = []
    return any(moves) if moves else None
