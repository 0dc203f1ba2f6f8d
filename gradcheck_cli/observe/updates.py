"""How far one optimizer step moves each parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradcheck_cli.observe.numerics import Reducer
from gradcheck_cli.observe.transfer import Value


class Updates:
    """Holds a copy of the parameters from before the update until `measure`."""

    def __init__(self, parameters: Sequence[Tensor], reducer: Reducer) -> None:
        self._parameters = list(parameters)
        self._before = [parameter.detach().clone() for parameter in parameters]
        self._reducer = reducer

    def measure(self) -> dict[str, Value]:
        """`updates` (n,): L2 norm of each parameter's change; `largest` (n,): max |p| after it."""
        with torch.no_grad():
            torch._foreach_sub_(self._before, self._parameters)
            largest = torch.stack([largest_of(parameter) for parameter in self._parameters])
            return {"updates": self._reducer.norms(self._before), "largest": largest}


def largest_of(parameter: Tensor) -> Tensor:
    """max |p| as a 0-d float32 tensor, 0 for an empty one."""
    if not parameter.numel():
        return torch.zeros((), device=parameter.device)
    low, high = torch.aminmax(parameter.abs() if parameter.is_complex() else parameter)
    return torch.maximum(-low, high).float()
