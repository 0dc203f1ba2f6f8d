"""Numbers that left the graph through `.item()` and may come back as arguments."""

from __future__ import annotations

import math

from gradcheck_cli.tape import Operand, TensorState


class Numbers:
    """Remembers which operation gave a NaN or an infinite number."""

    def __init__(self) -> None:
        self._givers: dict[str, int] = {}

    def note(self, number: float, operation: int) -> tuple[TensorState, ...]:
        """`operation` gave this number."""
        if not math.isfinite(number):
            self._givers[str(abs(number))] = operation
        return (state_of_number(number),)

    def operands(self, numbers: list[float]) -> list[Operand]:
        """What an operation reads when these are among its arguments and came out of the graph."""
        return [self._operand(number) for number in numbers if str(abs(number)) in self._givers]

    def _operand(self, number: float) -> Operand:
        giver = self._givers[str(abs(number))]
        writers = ((giver,), ()) if math.isnan(number) else ((), (giver,))
        return Operand("number", state_of_number(number), giver, "", *writers)


def state_of_number(number: float) -> TensorState:
    """A number as a tensor's state."""
    finite = float(number) if math.isfinite(number) else math.nan
    return TensorState(
        (),
        "float",
        1,
        nan=int(math.isnan(number)),
        positive_inf=int(number == math.inf),
        negative_inf=int(number == -math.inf),
        zeros=int(number == 0),
        negatives=int(number < 0),
        ones=int(abs(number) == 1),
        low=finite,
        high=finite,
    )
