"""Findings by what caused them, with everything that is known of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck_cli.blocks import make_blocks
from gradcheck_cli.comparison import Comparison
from gradcheck_cli.records import Finding, Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.html.words import show_layer
from gradcheck_cli.report.json_document import encode


@dataclass(frozen=True)
class Link:
    """To another finding of the page, or to none where `anchor` is empty."""

    anchor: str
    label: str


@dataclass(frozen=True)
class Card:
    """One finding: `state` is that of a comparison with a baseline, `reason` why it was accepted."""

    anchor: str
    finding: Finding
    layer: str
    evidence: Sequence[tuple[str, str]]
    because: Sequence[Link]
    explains: Sequence[Link]
    state: str = ""
    reason: str = ""


@dataclass(frozen=True)
class CardGroup:
    """Root causes, and what they explain."""

    roots: Sequence[Card]
    explained: Sequence[Card]


def make_cards(report: Report, prefix: str) -> list[CardGroup]:
    """In the order of the terminal's list; anchors begin with the prefix."""
    blocks = make_blocks(report.diagnosis.findings)
    findings = [finding for block in blocks for finding in block.findings]
    anchors = {finding.fingerprint: f"{prefix}finding-{index}" for index, finding in reversed([*enumerate(findings)])}
    numbered = iter(range(len(findings)))

    def cards(members: Iterable[Finding]) -> list[Card]:
        return [make_card(one, f"{prefix}finding-{next(numbered)}", anchors, report.comparison) for one in members]

    return [CardGroup(cards(block.roots), cards(block.explained)) for block in blocks]


def make_card(finding: Finding, anchor: str, anchors: Mapping[str, str], comparison: Comparison | None) -> Card:
    """One of them."""
    return Card(
        anchor,
        finding,
        "" if finding.layer is None else show_layer(finding.layer),
        [(name.replace("_", " "), show(value)) for name, value in finding.evidence.items()],
        links(finding.because, anchors),
        links(finding.explains, anchors),
        comparison.state_of(finding.fingerprint) if comparison else "",
        comparison.accepted.get(finding.fingerprint, "") if comparison else "",
    )


def links(fingerprints: Sequence[str], anchors: Mapping[str, str]) -> list[Link]:
    """To the findings that the page has, each once."""
    return [Link(anchors.get(one, ""), name_fingerprint(one)) for one in dict.fromkeys(fingerprints)]


def name_fingerprint(fingerprint: str) -> str:
    """`GC101 layers.0`."""
    code, _, layer = fingerprint.partition(":")
    return f"{code} {layer}".strip()


def show(value: Any) -> str:
    """A value of the evidence: numbers short, lists with commas, what is deeper as JSON."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return figures.plain(value) if abs(value) < 1e15 else f"{value:g}"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list | tuple) and not any(isinstance(item, Mapping | list | tuple) for item in value):
        return ", ".join(map(show, value)) or "–"
    if isinstance(value, list | tuple):
        return "; ".join(map(show, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {show(item)}" for name, item in value.items())
    return json.dumps(encode(value), ensure_ascii=False)
