"""What one step leaves behind before it has come over from the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradcheck_cli.observe.signals.tallies import Layout
from gradcheck_cli.observe.transfer import Value


@dataclass(frozen=True)
class Probed:
    """What was heard in a probed step. `output_numel` and `gradient_numel` give, by probe, the number of elements
    behind its `output.<probe>` and `gradient.<probe>`, in calling order.
    """

    layout: Layout
    output_numel: dict[int, int]
    gradient_numel: dict[int, int]


@dataclass(slots=True)
class Draft:
    """`values` may still be on the device; the rest is known at once.

    `present` lists the parameters that had a gradient, `trainable` those that could have one. The numbers of `probed`
    that are still on the device are `values["numbers"]`.
    """

    probing: bool
    losses: list[Tensor | float] = field(default_factory=list)
    lr: Sequence[float | Tensor] = ()
    values: dict[str, Value] = field(default_factory=dict)
    present: Sequence[int] = ()
    trainable: Sequence[int] = ()
    measured: bool = False
    clipping: bool = False
    batch: int = -1
    epoch: int = 0
    nonfinite_input: str = ""
    examples: int = 0
    seconds: float = 0.0
    overhead: float = 0.0
    probed: Probed | None = None
    own: tuple[float, float] | None = None

    def add_losses(self) -> None:
        """Sum the losses of all backward calls: with accumulation, each is already divided by the window's length."""
        if self.losses:
            self.values["loss"] = added(self.losses)


def value_of(loss: Tensor) -> Tensor | float:
    """A loss as it is now; a number where that makes nobody wait for a device."""
    return loss.item() if type(loss) is Tensor and loss.is_cpu and loss.numel() == 1 else loss.detach()


def added(terms: Sequence[Tensor | float]) -> Tensor | float:
    """The sum of 0-d tensors, in float32 or better; a single one as it is."""
    if len(terms) == 1:
        return terms[0]
    home = next((term.device for term in terms if isinstance(term, Tensor)), None)
    if home is None:
        return sum(terms)
    tensors = [term if isinstance(term, Tensor) else torch.tensor(term, device=home) for term in terms]
    return torch.stack([term if term.dtype is torch.float64 else term.float() for term in tensors]).sum()
