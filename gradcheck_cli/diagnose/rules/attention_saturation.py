"""# GC604 attention-saturation

## What it detects

Attention so sharp that each query looks at one or two keys only: from the start, before anything was learned, or
because its logits grow in training.

## Why it matters

Where a softmax gives one key all the weight, its derivative is zero: queries and keys get no gradient, and what is
looked at stays what chance made it. The rest of the network still trains, and no gradient norm shows it. Logits that
grow on and on in training end in sudden divergence. Zhai et al., "Stabilizing Transformer Training by Preventing
Attention Entropy Collapse", 2023, section 3; Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters",
2023, section 2; Wortsman et al., "Small-scale proxies for large-scale Transformer training instabilities", 2023,
section 3.1.

## How to fix

1. Divide the logits by the square root of the width of a head, once: q @ k.T / sqrt(d). Vaswani et al., "Attention Is
   All You Need", 2017, section 3.2.1. `scaled_dot_product_attention` does it by itself.
2. Smaller initial weights of queries and keys: `nn.init.xavier_uniform_`, or N(0, 0.02) as GPT-2 has.
3. Normalise queries and keys, each head's by itself (QK-norm): Henry et al., "Query-Key Normalization for
   Transformers", 2020, section 3; Dehghani et al., 2023, section 2.
4. Where logits grow in training: a smaller learning rate, a longer warm-up, weight decay on queries and keys, or a
   penalty on log Z of the softmax (z-loss: Chowdhery et al., "PaLM", 2022, section 5).

## How it decides

On probed steps, for every call of attention: the standard deviation of the logits over the keys that a query sees,
mean over queries, and the entropy of its weights over the log of their number, median over queries, so that 1 is
uniform. Masked keys are left out.

On the first step of a run: deviation > 10 or entropy < 0.2 is an error, deviation > 3 or entropy < 0.5 a
warning. Healthy models measured 0 to 2 and 0.63 to 1; queries and keys at twice Xavier's initialisation 2.6 to 3.5.
Without --checkpoint, and with the scales of the normalisations at 1 or 0: trained attention may be sharp.

In training: deviation > 10 and entropy < 0.2 on the last probed step, where the deviation grew to three times that
of the first, is a warning. Healthy language models measured up to 4.9 and down to 0.22 in 300 steps; ten to thirty
times their learning rate gave 30 to 240 and 0.00 in 150, with a loss that stayed at 2.4 instead of 1.9.

What `scaled_dot_product_attention` adds to the products, such as ALiBi, is not in the deviation. In attention written
by hand it can't be told apart; there the deviation counts only while deviation x entropy < 2, as it is for logits that
are normally distributed (at most 1.6 for any deviation), or entropy <= 0.35. ALiBi measured 3.9 to 25 and 0.43 to 0.88
with 256 to 2048 keys. One finding for all like places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gradcheck_cli.diagnose.initialisation import starts_untrained
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.selection import by_pattern
from gradcheck_cli.diagnose.wording import list_names
from gradcheck_cli.records import Finding, Recording, Severity
from gradcheck_cli.signals import Site

ERROR_STD, WARNING_STD = 10.0, 3.0
ERROR_ENTROPY, WARNING_ENTROPY = 0.2, 0.5
EVEN, BIASED = 0.35, 2.0
GROWTH = 3.0


@dataclass(frozen=True)
class Sharpness:
    """Of one call of attention on one probed step; `began` is the deviation of its logits on the first one."""

    site: Site
    step: int
    std: float
    entropy: float
    began: float

    @property
    def is_biased(self) -> bool:
        """Whether the spread is of what was added to the logits: the weights are more even than it would make them."""
        return self.site.kind == "softmax" and self.entropy > EVEN and self.std * self.entropy >= BIASED

    @property
    def severity(self) -> Severity | None:
        """Of attention that has learned nothing yet; None where it is healthy."""
        if self.entropy < ERROR_ENTROPY or (self.std > ERROR_STD and not self.is_biased):
            return Severity.ERROR
        sharp = self.entropy < WARNING_ENTROPY or self.std > WARNING_STD
        return Severity.WARNING if sharp and not self.is_biased else None

    @property
    def has_grown(self) -> bool:
        """Whether training made it sharp."""
        return self.std > max(ERROR_STD, GROWTH * self.began) and self.entropy < ERROR_ENTROPY


@rule("GC604", "attention-saturation", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if recording.signals is None or not len(recording.probes.steps):
        yield check.skip("attention was not measured: the recording has no signals, or no step was probed")
        return
    sharp = [one for one in measure(recording, 0) if one.severity] if starts_untrained(recording) else []
    grown = [] if sharp else [one for one in measure(recording, -1) if one.has_grown]
    for layer, group in by_layer(sharp).items():
        yield at_first(layer, group)
    for layer, group in by_layer(grown).items():
        yield in_training(layer, group)


def measure(recording: Recording, row: int) -> list[Sharpness]:
    """Every place, on the first (row 0) or last (row -1) probed step on which it was called."""
    assert recording.signals is not None
    attention, found = recording.signals.attention, []
    for site, std, entropy in zip(attention.sites, attention.logit_std.T, attention.entropy.T, strict=True):
        rows = np.flatnonzero(np.isfinite(std) & np.isfinite(entropy))
        if len(rows):
            step = int(recording.probes.steps[rows[row]])
            found.append(Sharpness(site, step, float(std[rows[row]]), float(entropy[rows[row]]), float(std[rows[0]])))
    return found


def by_layer(places: Sequence[Sharpness]) -> dict[str, list[Sharpness]]:
    """Places by the pattern of their modules' names."""
    groups = by_pattern(list(dict.fromkeys(one.site.module for one in places)))
    return {layer: [one for one in places if one.site.module in names] for layer, names in groups.items()}


def at_first(layer: str, group: Sequence[Sharpness]) -> Finding:
    """The finding for attention that begins sharp."""
    worst = min(group, key=lambda one: one.entropy)
    severity = max((one.severity for one in group if one.severity), key=lambda severity: severity.rank)
    return check.finding(
        f"attention is saturated before anything is learned, in {places(group)}: {describe(worst)}",
        "divide the logits by the square root of a head's width, once; smaller initial weights of queries and keys"
        " (nn.init.xavier_uniform_, or std 0.02); or normalise queries and keys (QK-norm)",
        severity=severity,
        layer=layer or None,
        step=worst.step,
        evidence={**evidence(group, worst), "error_std": ERROR_STD, "warning_std": WARNING_STD},
    )


def in_training(layer: str, group: Sequence[Sharpness]) -> Finding:
    """The finding for logits that grew."""
    worst = min(group, key=lambda one: one.entropy)
    return check.finding(
        f"the logits of attention grow in training, in {places(group)}: {describe(worst)}; on the first probed step"
        f" it was {worst.began:.2g}",
        "normalise queries and keys (QK-norm), add a z-loss, or take a smaller learning rate with a longer warm-up;"
        " logits that go on growing end in divergence",
        severity=Severity.WARNING,
        layer=layer or None,
        step=worst.step,
        evidence={**evidence(group, worst), "first_logit_std": worst.began, "warning_std": ERROR_STD, "growth": GROWTH},
    )


def places(group: Sequence[Sharpness]) -> str:
    """Where, in words."""
    return list_names(list(dict.fromkeys(one.site.name for one in group)), 3)


def describe(one: Sharpness) -> str:
    """The two numbers in words."""
    return (
        f"the standard deviation of the logits is {one.std:.2g} and the entropy of the weights {one.entropy:.2f}"
        " of the possible"
    )


def evidence(group: Sequence[Sharpness], worst: Sharpness) -> dict[str, object]:
    """The numbers of the sharpest place, and the places."""
    return {
        "modules": list(dict.fromkeys(one.site.module for one in group)),
        "kind": worst.site.kind,
        "logit_std": worst.std,
        "entropy": worst.entropy,
        "error_entropy": ERROR_ENTROPY,
        "warning_entropy": WARNING_ENTROPY,
    }
