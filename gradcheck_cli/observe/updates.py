"""How far one optimizer step moves each parameter."""

from __future__ import annotations

from collections.abc import Sequence

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
        """`updates` (n,): L2 norm of each parameter's change; `largest` (n,): the magnitude of its largest element."""
        updates, largest = self._reducer.changes(self._before, self._parameters)
        return {"updates": updates, "largest": largest}
