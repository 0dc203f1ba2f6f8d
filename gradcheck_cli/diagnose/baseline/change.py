"""A run beside its baseline: what the rules on shifts judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import hypot

from gradcheck_cli.baseline import LayerMeasure, Measures, ShareMeasure, SlopeMeasure, Tolerances
from gradcheck_cli.diagnose.baseline.matching import Matching
from gradcheck_cli.diagnose.selection import pattern

SIGMAS = 4.0
"""So many standard deviations, of both runs together, are noise."""
PROPORTION = 1 / 3
"""A product of many random factors varies in proportion to its logarithm: by less than that from seed to seed."""


@dataclass(frozen=True)
class Change:
    """The measures `then`, in the baseline, and `now`, and which layer is which."""

    then: Measures
    now: Measures
    matching: Matching
    tolerances: Tolerances = field(default_factory=Tolerances)

    def layers(self) -> Iterator[tuple[LayerMeasure, LayerMeasure]]:
        """Layers that both have."""
        now = {one.name: one for one in self.now.layers}
        for one in self.then.layers:
            if one.name in self.matching.names:
                yield one, now[self.matching.names[one.name]]

    def slopes(self) -> Iterator[tuple[SlopeMeasure, SlopeMeasure]]:
        """Groups of layers that both have."""
        now = {(one.group, one.type): one for one in self.now.slopes}
        for one in self.then.slopes:
            if counterpart := now.get((self.group_now(one), one.type)):
                yield one, counterpart

    def shares(self) -> Iterator[tuple[ShareMeasure, ShareMeasure]]:
        """Functions that both have."""
        now = {(one.what, one.layer, one.function): one for one in self.now.shares}
        for one in self.then.shares:
            if counterpart := now.get((one.what, self.matching.translate(one.layer), one.function)):
                yield one, counterpart

    def group_now(self, slope: SlopeMeasure) -> str:
        """What a group of the baseline is called now."""
        if slope.group != pattern(slope.first_layer):  # it is named by its type
            return slope.group
        return pattern(self.matching.translate(slope.first_layer))

    def slope_limit(self, then: SlopeMeasure, now: SlopeMeasure) -> float:
        """How many decades a depth slope may move by chance, or by what the user tolerates."""
        extent = max(abs(then.decades), abs(now.decades))
        return max(self.tolerances.depth_slope, SIGMAS * hypot(then.noise, now.noise), PROPORTION * extent)

    def gradient_limit(self, then: LayerMeasure, now: LayerMeasure) -> float:
        """How many decades a layer's gradient may move; `spread` is how far apart the layers are in both runs."""
        spread = max((abs(one.gradient or 0.0) for one in (*self.then.layers, *self.now.layers)), default=0.0)
        return max(self.tolerances.gradient, SIGMAS * hypot(then.noise, now.noise), PROPORTION * spread)

    def share_limit(self, then: ShareMeasure, now: ShareMeasure) -> float:
        """By how much (0 to 1) a share may rise."""
        return max(self.tolerances.share / 100, SIGMAS * hypot(then.noise, now.noise))
