"""Optimizers by name, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradcheck_cli.errors import ConfigError


class NoUpdate(Optimizer):
    """Stands in for an optimizer where the user gave none: its step leaves the parameters as they are."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Do nothing."""


def make_optimizer(name: str, parameters: Iterable[Tensor], lr: float | None) -> Optimizer:
    """The optimizer of torch.optim called `name` (in any case), with its own default learning rate if `lr` is None.

    Raises ConfigError for a name that torch.optim does not have, and for one that does not take these parameters.
    """
    kinds = {kind.lower(): getattr(torch.optim, kind) for kind in dir(torch.optim) if is_optimizer(kind)}
    known = f"known: {', '.join(sorted(kinds))}"
    if name.lower() not in kinds:
        raise ConfigError(f"--optimizer {name} is none of torch.optim's that step without a closure", known)
    settings: dict[str, Any] = {} if lr is None else {"lr": lr}
    try:
        return kinds[name.lower()](parameters, **settings)  # type: ignore[no-any-return]
    except ValueError as error:  # Muon takes matrices only
        raise ConfigError(f"--optimizer {name} cannot be made: {error}", known) from error


def is_optimizer(name: str) -> bool:
    """Whether torch.optim's `name` is an optimizer that steps without a closure."""
    kind = getattr(torch.optim, name)
    return isinstance(kind, type) and issubclass(kind, Optimizer) and name not in ("Optimizer", "LBFGS")
