"""A baseline: what a model was like when it was last thought to be well, in plain values.

FORMAT_VERSION counts the layouts of the file:
1  first release
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gradcheck_cli.records import Severity

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Tolerances:
    """How far a measure may move before that is a finding; each also has to move beyond its own noise.

    `depth_slope` and `gradient` in decades, `share` in points (hundredths), `max_norm` as a factor.
    """

    depth_slope: float = 1.0
    gradient: float = 1.0
    share: float = 20.0
    max_norm: float = 1.5


@dataclass(frozen=True)
class KnownFinding:
    """A finding of the run that the baseline was made of.

    `layers` are those that it names, `beyond` is by how many decades the number that decided lies beyond the lowest
    threshold of its rule; None where the rule does not decide by a threshold.
    """

    fingerprint: str
    severity: Severity
    message: str
    layers: tuple[str, ...] = ()
    beyond: float | None = None


@dataclass(frozen=True)
class AcceptedFinding:
    """A finding that somebody looked at and accepted, and why; `layers` as in a KnownFinding."""

    fingerprint: str
    reason: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerMeasure:
    """A module with parameters of its own; `shapes` are theirs.

    `gradient` is log10 of its gradient's RMS over the median of all layers, the median over the steps, and `noise` the
    robust standard deviation of that from step to step; None without a gradient. `reached` is the share of the `rows`
    recorded steps on which the gradient was not zero.
    """

    name: str
    type: str
    shapes: tuple[tuple[int, ...], ...]
    gradient: float | None
    noise: float
    reached: float
    rows: int


@dataclass(frozen=True)
class SlopeMeasure:
    """The depth slope of a group of like layers in decades, as GC101 measures it, and its noise from step to step."""

    group: str
    type: str
    first_layer: str
    last_layer: str
    decades: float
    noise: float


@dataclass(frozen=True)
class ShareMeasure:
    """The `dead` or `saturated` share (0 to 1) of what a function behind a layer returns, and its noise."""

    what: str
    layer: str
    function: str
    share: float
    noise: float


@dataclass(frozen=True)
class NormMeasure:
    """The max_norm that recommend-clip gave, and its 95 % interval, where there was one."""

    max_norm: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measures:
    """What is compared apart from findings; empty where there was nothing to measure."""

    layers: tuple[LayerMeasure, ...] = ()
    slopes: tuple[SlopeMeasure, ...] = ()
    shares: tuple[ShareMeasure, ...] = ()
    clipping: NormMeasure | None = None


@dataclass(frozen=True)
class RunConditions:
    """What a comparison takes for granted to be the same."""

    steps: int
    precision: str
    accumulate: int
    training: bool


@dataclass(frozen=True)
class Section:
    """What one command found and measured of one model; `model` is "" where a script trains no other."""

    command: str
    model: str
    run: RunConditions
    findings: tuple[KnownFinding, ...] = ()
    accepted: tuple[AcceptedFinding, ...] = ()
    measures: Measures = field(default_factory=Measures)

    def accepting(self, accepted: Iterable[AcceptedFinding]) -> Section:
        """The section with more accepted findings; a newer reason takes the place of an older one."""
        merged = {one.fingerprint: one for one in (*self.accepted, *accepted)}
        return replace(self, accepted=tuple(merged[name] for name in sorted(merged)))


@dataclass(frozen=True)
class Baseline:
    """A whole file: a section for each command and model."""

    sections: tuple[Section, ...] = ()

    def of(self, command: str) -> dict[str, Section]:
        """The sections of a command, by model."""
        return {section.model: section for section in self.sections if section.command == command}

    def replacing(self, command: str, sections: Iterable[Section]) -> Baseline:
        """The baseline with these sections in the place of all that the command had."""
        others = [section for section in self.sections if section.command != command]
        return Baseline(tuple(sorted([*others, *sections], key=lambda section: (section.command, section.model))))
