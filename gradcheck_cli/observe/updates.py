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
        """`updates` (n,): L2 norm of each parameter's change; `low` and `high` (n,): its extremes after it."""
        with torch.no_grad():
            torch._foreach_sub_(self._before, self._parameters)
            low, high = zip(*map(extremes_of, self._parameters), strict=True)
            return {"updates": self._reducer.norms(self._before), "low": torch.stack(low), "high": torch.stack(high)}


def extremes_of(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest element, of the magnitudes if complex, as 0-d tensors; 0 for an empty tensor."""
    values = parameter.abs() if parameter.is_complex() else parameter
    low, high = torch.aminmax(values if values.numel() else values.new_zeros(1))
    return low, high
