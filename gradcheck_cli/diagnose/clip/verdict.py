"""Whether a run should clip its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradcheck_cli.clip_advice import Tail
from gradcheck_cli.diagnose.clip.drift import factor
from gradcheck_cli.diagnose.clip.kept import Kept
from gradcheck_cli.diagnose.clip.warmup import log_norms
from gradcheck_cli.diagnose.statistics import robust_sigma
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Bools, Finding, Floats

SIGMAS = 6.0
LEAST_FACTOR = 1.1
"""A norm less than this factor above the median is no spike, however alike the others are."""
FEWEST_FOR_TAIL = 104
"""With fewer, less than tail.LEAST_EXCEEDANCES lie above p90."""


class Verdict(NamedTuple):
    """One of clip_advice.VERDICTS, and what decided it, in words."""

    name: str
    reasons: tuple[str, ...]


def decide(kept: Kept, tail: Tail | None, ill: Sequence[Finding], shortage: str) -> Verdict:
    """The verdict on the kept norms; `ill` are findings that clipping would hide, `shortage` says what is missing."""
    if faults := name_faults(kept, ill):
        return Verdict("fix-first", faults)
    if not len(kept.norms) or not kept.norms.any():
        reason = "every gradient is zero, there is nothing to clip" if len(kept.norms) else shortage
        return Verdict("insufficient-data", (reason,))
    if shortage or (tail is None and len(kept.norms) < FEWEST_FOR_TAIL):
        return Verdict("insufficient-data", (shortage or "too few steps to judge the tail of the norms",))
    reasons = name_needs(kept, tail)
    return Verdict("clip", reasons) if reasons else Verdict("not-needed", name_comforts(tail))


def name_faults(kept: Kept, ill: Sequence[Finding]) -> tuple[str, ...]:
    """What has to be mended before clipping is worth a thought."""
    nonfinite = kept.dropped["nonfinite"]
    steps = (f"the gradient norm is not finite in {count(nonfinite, 'step')}",) if nonfinite else ()
    return (*steps, *(f"{finding.code} {finding.name}: {finding.message}" for finding in ill))


def name_needs(kept: Kept, tail: Tail | None) -> tuple[str, ...]:
    """What speaks for clipping; empty for nothing."""
    reasons = []
    if (spikes := find_spikes(kept.norms)).any():
        step, largest = int(kept.steps[np.argmax(kept.norms)]), float(kept.norms.max())
        logs = log_norms(kept.norms)
        times = factor(float(logs.max() - np.median(logs[kept.norms > 0])))
        reasons.append(
            f"{count(int(spikes.sum()), 'step')} of {len(spikes)} beyond median + 6 robust sigmas of the log norm, "
            f"the largest ({largest:.3g}, {times:.3g} times the median) in step {step}"
        )
    if tail is not None and tail.interval.low > 0:
        reasons.append(f"the tail is heavy: shape {tail.shape:.2f}, at least {tail.interval.low:.2f} with 97.5 %")
    return tuple(reasons)


def find_spikes(norms: Floats) -> Bools:
    """Which of the norms (n,) lie beyond median + SIGMAS robust sigmas of the log norm of those that are not 0."""
    logs = log_norms(norms)
    usual = logs[norms > 0]
    spikes: Bools = logs > np.median(usual) + max(SIGMAS * robust_sigma(usual), np.log(LEAST_FACTOR))
    return spikes


def name_comforts(tail: Tail | None) -> tuple[str, ...]:
    """What speaks against clipping."""
    spikes = "no step beyond median + 6 robust sigmas of the log norm"
    if tail is None:
        return (spikes, "next to no norms above p90, or all alike")
    low, high = tail.interval
    return (spikes, f"the tail is not shown to be heavy (shape {tail.shape:.2f}, {low:.2f} to {high:.2f})")
