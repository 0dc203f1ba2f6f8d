"""Steps that were watched: what it takes to run them again, and what was seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

from torch import Tensor

from gradcheck_cli.observe.nan.randomness import RandomState


@dataclass(slots=True)
class HeldBatch:
    """A batch as it was before its forward pass, and the random state then."""

    batch: Any
    random: RandomState


@dataclass(slots=True)
class HeldStep:
    """A step that can be replayed, and what was seen of it; `scale` and `found_inf` only with a GradScaler."""

    number: int
    batches: list[HeldBatch] = field(default_factory=list)
    losses: list[Tensor | float] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)
    found_inf: Tensor | None = None
    scale: Tensor | None = None
    lr: list[float | Tensor] = field(default_factory=list)
    seconds: float = nan

    @property
    def skipped(self) -> bool:
        """Whether a GradScaler skipped the update."""
        return self.found_inf is not None and bool(self.found_inf)


@dataclass(frozen=True)
class SeenStep:
    """What is known of a step once its window was looked at; see `records.Series`."""

    number: int
    loss: float
    grad_norm: float
    lr: tuple[float, ...]
    skipped: bool
    loss_scale: float
    batch: int
    epoch: int
    seconds: float

    @property
    def nonfinite(self) -> bool:
        """Whether its loss was not finite."""
        return not isfinite(self.loss)
