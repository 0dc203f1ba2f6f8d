"""What was measured after the run, on batches that it had: plain values, part of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ScaleCheck:
    """The gradient of the last step's batches, held against finite differences of their loss along it.

    `grad_norm` is that of the gradient as the optimizer would get it. `slopes` are (L(p + s u) - L(p - s u)) / (2 s)
    for each s of `sizes`, u being the gradient over its norm; `loss` is L(p), `resolution` the smallest relative
    difference of losses that their dtype has. `reason` says why nothing could be measured, if so.
    """

    grad_norm: float = 0.0
    sizes: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    loss: float = 0.0
    resolution: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class SampleGradients:
    """The gradient of each sample of one step's batches, with the weights of that step (`at_step`) or of the run's end.

    A sample is row `rows[i]` of the batch with index `batches[i]` in its epoch, and has a gradient of norm `norms[i]`.
    `shares` are the parts of the step's gradient along itself that come from each, and sum to 1. `agreement` is what
    the samples' gradients sum to along it, over what it is: 1 where the loss is a mean (or sum) over the samples.
    `reason` says why nothing could be measured, if so.
    """

    step: int
    batches: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    norms: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    agreement: float = 0.0
    at_step: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Examination:
    """`scale` where --check-scale asked for it; `samples` where a step's gradient stood far above those before."""

    scale: ScaleCheck | None = None
    samples: SampleGradients | None = None


def to_plain(examination: Examination | None) -> dict[str, Any] | None:
    """An examination as JSON has it."""
    return asdict(examination) if examination else None


def from_plain(plain: Mapping[str, Any] | None) -> Examination | None:
    """The examination that `to_plain` made this of. Raises TypeError or KeyError where it did not."""
    if plain is None:
        return None
    scale, samples = plain["scale"], plain["samples"]
    return Examination(
        scale and ScaleCheck(**tupled(scale)),
        samples and SampleGradients(**tupled(samples)),
    )


def tupled(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members with tuples for lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in members.items()}
