"""What a run has become since its baseline was written: plain values, part of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Comparison:
    """Findings are named by their fingerprints. Only `new` ones make a run fail; shifts are findings of GC8xx.

    `baseline` is the path of the file. `accepted` gives the reason that was written down for each accepted finding.
    `gone` are findings of the baseline that the run has no more, `better` says in sentences what else improved.
    `renamed` maps layers' old names to new ones; `added` and `removed` are layers without a counterpart.
    `not_compared` says in sentences what could not be compared, and why. `uncertain` are findings that the baseline
    does not have but another seed could bring about, so that they don't count.
    """

    baseline: str
    new: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    accepted: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()

    def state_of(self, fingerprint: str) -> str:
        """new, known, accepted or uncertain."""
        if fingerprint in self.accepted:
            return "accepted"
        if fingerprint in self.uncertain:
            return "uncertain"
        return "new" if fingerprint in self.new else "known"
