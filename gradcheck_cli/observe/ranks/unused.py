"""Parameters that this rank did not use, and whose gradients the others wait for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gradcheck_cli.errors import GradcheckError
from gradcheck_cli.observe.naming import clean

WAITS = "DDP waits for every gradient on every rank"
MIXES = "FSDP2 adds up the gradients of the parameters that a rank did use, other ones on other ranks"


class UnusedParameterError(GradcheckError):
    """This rank did not use a parameter whose gradient the others wait for."""


class Unfinished:
    """Tells whether a backward leaves DDP waiting for gradients, from what is there before and after it.

    `is_due` says that the newest forward pass was one after which gradients are synchronised.
    """

    def __init__(self, module: DistributedDataParallel) -> None:
        named = [(name, one) for name, one in module.module.named_parameters() if one.requires_grad]
        self._named = [(clean(name), one) for name, one in named if name not in module.parameters_to_ignore]
        self._waits = not module.find_unused_parameters and not module.static_graph
        self._before: list[tuple[Tensor | None, int]] = []
        self.is_due = False

    def begin(self) -> None:
        """A backward begins."""
        self._before = self._stamps() if self._waits and self.is_due else []

    def check(self) -> None:
        """It has run. Raises UnusedParameterError if it has reached some parameters and others not."""
        after = self._stamps() if self._before else []
        missing = [one[0] is other[0] and one[1] == other[1] for one, other in zip(self._before, after, strict=True)]
        self._before = []
        if all(missing):  # another model's backward
            return
        self.is_due = False
        if any(missing):
            names = [name for (name, _), is_missing in zip(self._named, missing, strict=True) if is_missing]
            raise unused(names, WAITS, "DistributedDataParallel(..., find_unused_parameters=True) does not wait for it")

    def _stamps(self) -> list[tuple[Tensor | None, int]]:
        """What changes when a gradient does."""
        found = [parameter.grad for _, parameter in self._named]
        return [(gradient, -1 if gradient is None else gradient._version) for gradient in found]


def unused(names: Sequence[str], why: str, remedy: str) -> UnusedParameterError:
    """The error for parameters of these names."""
    rank, more = torch.distributed.get_rank(), f" and {len(names) - 1} more" if len(names) > 1 else ""
    return UnusedParameterError(
        f"rank {rank} did not use {names[0]}{more}, and {why}: without this error the run would hang or go wrong"
        " (GC705 unused-on-some-ranks)",
        f"{remedy}; or let every rank use every parameter, if only times 0",
    )
