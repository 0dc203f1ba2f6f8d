"""How far beyond its threshold the number lies that decided a finding: what is near to it comes and goes by chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from gradcheck_cli.records import Finding

MARGIN = math.log10(2)
"""Decades. A finding that the baseline does not have counts from twice the threshold on; see docs/baseline.md."""

Evidence = Mapping[str, Any]


def over(value: str, threshold: str) -> Callable[[Evidence], float]:
    """Decades by which the one number of the evidence exceeds the other."""
    return lambda evidence: decades(evidence[value], evidence[threshold])


def decades(value: float, threshold: float) -> float:
    """log10 of the quotient; infinite for what is not finite, or for a threshold of 0."""
    if not (math.isfinite(value) and threshold > 0):
        return math.inf
    return math.log10(value / threshold) if value > 0 else -math.inf


def spiked_loss(evidence: Evidence) -> float:
    """Of losses that may be negative only the way from the median counts."""
    return decades(evidence["loss"] - evidence["median"], evidence["threshold"] - evidence["median"])


def diverged(evidence: Evidence) -> float:
    """A loss that became NaN or Inf is beyond any threshold."""
    return math.inf if evidence["became_nonfinite"] else decades(evidence["end"], evidence["limit"])


def sharp(evidence: Evidence) -> float:
    """Attention: by the deviation of its logits or by its entropy, whichever says more."""
    wide = decades(evidence["logit_std"], evidence["warning_std"])
    return wide if "growth" in evidence else max(wide, decades(evidence["warning_entropy"], evidence["entropy"]))


def blown_up(evidence: Evidence) -> float:
    """Weights: by their largest value or by their growth."""
    return max(
        decades(evidence["largest_value"], evidence["largest_value_limit"]),
        decades(evidence["growth"] or 0.0, evidence["growth_limit"]),
    )


def updated(evidence: Evidence) -> float:
    """Updates: too large on the first step or in the median, or too small."""
    if evidence["which"] == "too small":
        return decades(evidence["warning_below"], evidence["largest_update_ratio"])
    pairs = (("first_update_ratio", "first_at"), ("median_update_ratio", "median_at"))
    return max(decades(evidence[value] or 0.0, evidence[threshold]) for value, threshold in pairs)


def constant(evidence: Evidence) -> float:
    """Outputs: one that is constant to its last digits is so for certain; one class for all by the variation."""
    variation = evidence.get("median_variation")
    if variation is None or evidence["largest_variation"] <= evidence["error_at"]:
        return math.inf
    return decades(evidence["one_class_below"], variation)


BEYOND: Mapping[str, Callable[[Evidence], float]] = {
    "GC101": lambda evidence: evidence["depth_slope_decades"] - evidence["warning_at"],
    "GC102": lambda evidence: (
        evidence["warning_at"] - evidence["depth_slope_decades"]
        if "warning_at" in evidence
        else evidence["forward_slope_decades"] - evidence["forward_error_at"]
    ),
    "GC108": lambda evidence: decades(evidence["limit"], min(evidence["median_norms"])),
    "GC610": lambda evidence: 0.0,  # information on how noisy the gradients of a few steps were
    "GC107": over("grad_norm", "limit"),
    "GC201": over("grad_norm", "threshold"),
    "GC202": spiked_loss,
    "GC203": diverged,
    "GC204": lambda evidence: evidence["decades"] - evidence["limit"],
    "GC306": blown_up,
    "GC405": lambda evidence: 0.0,  # it says that the run was short, which is no fault of the model's
    "GC604": sharp,
    "GC605": lambda evidence: decades(1 - evidence["warning_at"], 1 - evidence["last_cosine"]),
    "GC606": lambda evidence: evidence["growth_decades"] - evidence["warning_at"],
    "GC608": over("growth", "warning_at"),
    "GC609": updated,
    "GC612": over("ratio", "least_ratio"),
    "GC613": constant,
}
"""Of each rule that decides by a number which varies from seed to seed. All others are certain of what they find."""


def beyond(finding: Finding) -> float | None:
    """How many decades the deciding number lies beyond the threshold.

    None where chance could not have brought it there: of rules that do not decide by such a number, and of numbers that
    are not finite.
    """
    measure = BEYOND.get(finding.code)
    try:
        found = measure(finding.evidence) if measure else math.inf
    except (KeyError, TypeError):  # the finding was made without these numbers: another way to be certain
        return None
    return found if math.isfinite(found) else None
