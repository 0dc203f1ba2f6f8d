"""The thresholds that a user may set, with the defaults that were measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`large`: global gradient norm, GC107. `tiny`: a parameter's gradient norm, GC108."""

    large: float = 100.0
    tiny: float = 1e-8
