"""An optimizer's place in a recording, where the script updates its parameters itself."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer


class HandUpdates(Optimizer):
    """Holds the parameters of a model and does nothing; its learning rate is not known."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__([p for p in model.parameters() if p.requires_grad], {"lr": float("nan")})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nothing: the script has done it."""
