"""# GC603 dead-units

## What it detects

Units or channels before a ReLU (or ReLU6) that are zero for every example: most of a layer's, or all of them.

## Why it matters

A unit that is never active passes nothing on and gets no gradient: neither its own weights nor, through it, those of
the layers before can change, so that it stays dead. The layer is narrower than it looks; where all units are dead the
signal ends there, and everything before it learns nothing. Lu et al., "Dying ReLU and Initialization: Theory and
Numerical Examples" (2020), section 3; Maas et al., "Rectifier Nonlinearities Improve Neural Network Acoustic Models"
(2013), section 2.

## How to fix

1. Begin with biases of zero (`nn.init.zeros_`) and weights by `nn.init.kaiming_normal_`.
2. A smaller learning rate, or a warm-up: one large step can push biases below anything that the weights can add.
3. Normalise before the ReLU (`nn.BatchNorm2d`, `nn.LayerNorm`).
4. LeakyReLU or GELU, which have a slope everywhere.

## How it decides

A unit is dead when it gave nothing above zero on any probed step, at any position. At least 85 % dead units of a layer
are an error, at least 70 % a warning, over at least 128 examples; with fewer it is not evaluated. Deep healthy networks
measure up to 32 % with He initialisation and 51 % with PyTorch's default, where half of the units point away from all
examples, each by chance: so the share must also exceed a half by four standard deviations of that chance,
2 / sqrt(units), which is more than 85 % below 33 units.

A whole layer is an error, over any number of examples that with at least two units makes 256 outputs: all units dead,
or nothing but zeros on the last two probed steps, while there was something on the first. Units are judged on the
latest calls that have 128 examples together, so that those which die in training are seen. (At 96 examples the largest
share in a healthy network was 48 %, at 256 it was 37 %.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from gradcheck_cli.diagnose.activations import find_feeding_layers
from gradcheck_cli.diagnose.limits import Limits
from gradcheck_cli.diagnose.rule import Outcome, rule
from gradcheck_cli.diagnose.rules.saturated_activation import why_not
from gradcheck_cli.diagnose.selection import pattern
from gradcheck_cli.diagnose.wording import count
from gradcheck_cli.records import Floats, Recording, Severity

ERROR = 0.85
WARNING = 0.70
FEWEST_EXAMPLES = 128
FEWEST_OUTPUTS = 256
FEWEST_UNITS = 2
LAST_ROWS = 2


@dataclass(frozen=True)
class Deadness:
    """The dead share of a ReLU's units over so many examples; `layer` feeds it, or calls it."""

    layer: str
    kind: str
    units: int
    share: float
    examples: int

    @property
    def severity(self) -> Severity | None:
        """How bad the share is, whatever the number of examples."""
        if self.units < FEWEST_UNITS or self.units * self.examples < FEWEST_OUTPUTS:
            return None
        beyond_chance = self.share >= 0.5 + 2 / sqrt(self.units)
        if self.share == 1 or (beyond_chance and self.share >= ERROR):
            return Severity.ERROR
        return Severity.WARNING if beyond_chance and self.share >= WARNING else None

    @property
    def is_known(self) -> bool:
        """Whether there were enough examples to say so."""
        return self.share == 1 or self.examples >= FEWEST_EXAMPLES


@rule("GC603", "dead-units", Severity.ERROR)
def check(recording: Recording, limits: Limits) -> Iterator[Outcome]:
    if reason := why_not(recording):
        yield check.skip(reason)
        return
    bad = [(severity, one) for one in measure_deadness(recording) if (severity := one.severity)]
    if unsure := [one for _, one in bad if not one.is_known]:
        yield check.skip(say_unsure(unsure))
    groups: dict[tuple[str, Severity], list[Deadness]] = {}
    for severity, one in bad:
        if one.is_known:
            groups.setdefault((pattern(one.layer), severity), []).append(one)
    for (_, severity), group in groups.items():
        yield finding(group, severity)


def measure_deadness(recording: Recording) -> Iterator[Deadness]:
    """Every ReLU whose units could be told apart; one that gave only zeros of late is wholly dead."""
    assert recording.signals is not None
    table, feeding = recording.signals.activations, find_feeding_layers(recording)
    for index, site in enumerate(table.sites):
        share = float(table.never_active[index])
        if 0 <= share <= 1:
            share = 1.0 if has_died(table.zero[:, index]) else share
            yield Deadness(feeding[site], site.kind, int(table.units[index]), share, int(table.samples[index]))


def has_died(zero: Floats) -> bool:
    """Whether a function gives zeros only by now; not so where it never gave anything else.

    The fraction of zeros is that of a sample, which may have left out the units that are alive from the start.
    """
    return len(zero) > LAST_ROWS and bool(zero[0] < 1 and (zero[-LAST_ROWS:] == 1).all())


def say_unsure(unsure: Sequence[Deadness]) -> str:
    """Why a large share is not judged."""
    worst = max(unsure, key=lambda one: one.share)
    return (
        f"{worst.share:.0%} of the units of the {worst.kind} behind {worst.layer or 'the input'} were never active, but"
        f" over {worst.examples} examples only, {FEWEST_EXAMPLES} are needed: more --steps"
    )


def finding(group: Sequence[Deadness], severity: Severity) -> Outcome:
    """The finding for the ReLUs of one group."""
    first, others = group[0], len(group) - 1
    least = min(one.share for one in group)
    like = f"; {least:.0%} or more at {count(others, 'place')} like it" if others else ""
    return check.finding(
        describe(first) + like,
        "begin with biases of zero and weights by nn.init.kaiming_normal_; a smaller learning rate or a warm-up;"
        " normalise before it; or LeakyReLU or GELU, which have a slope everywhere",
        severity=severity,
        layer=(pattern(first.layer) if others else first.layer) or None,
        evidence={
            "layers": [one.layer for one in group],
            "never_active": [one.share for one in group],
            "units": [one.units for one in group],
            "examples": [one.examples for one in group],
            "error_at": ERROR,
            "warning_at": WARNING,
        },
    )


def describe(one: Deadness) -> str:
    """How many units are dead, and where."""
    where = f"the {one.kind} behind {one.layer}" if one.layer else f"a {one.kind}"
    if one.share == 1:
        return f"all {one.units} units of {where} are dead, it gives nothing but zeros"
    dead = round(one.share * one.units)
    return f"{dead} of {one.units} units of {where} were never active over {count(one.examples, 'example')}"
