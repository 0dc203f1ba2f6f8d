"""The recorders of other ranks, seen from one of them; a process that trains alone has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.records import Floats

Values = dict[str, Any]
"""What one step measured, by name, once it has come over from the device: each one a `transfer.Here`."""
Sums = Mapping[int, tuple[float, int]]
"""Sums of squares and numbers of elements, by probe."""


class Peers(Protocol):
    """What a recorder asks of them. `degree` is over how many ranks gradients are averaged."""

    is_alone: bool
    degree: int

    def prepare(self, parameters: Sequence[Tensor], probes: int) -> None:
        """Say what the recorder measures: these parameters, and so many modules."""

    def watching(self) -> AbstractContextManager[None]:
        """Look at the rank's own gradients for the length of the context."""

    def leave_in(self, draft: Draft) -> float:
        """The step is over: what it left goes into its draft; returns the seconds that it took to see it."""
        ...

    def put_together(self, drafts: Sequence[Draft], values: Sequence[Values], trainable: Sequence[int]) -> None:
        """Make what every rank measured of its part that of the whole, in `values`."""

    def whole_norms(self, norms: Floats) -> Floats:
        """(parameters,) norms of the whole parameters from those of this rank's parts."""

    def add_calls(self, sums: Sums) -> Sums:
        """The same over all ranks."""


class Alone:
    """No other ranks."""

    is_alone = True
    degree = 1

    def prepare(self, parameters: Sequence[Tensor], probes: int) -> None: ...
    def put_together(self, drafts: Sequence[Draft], values: Sequence[Values], trainable: Sequence[int]) -> None: ...

    def leave_in(self, draft: Draft) -> float:
        return 0.0

    def watching(self) -> AbstractContextManager[None]:
        return nullcontext()

    def whole_norms(self, norms: Floats) -> Floats:
        return norms

    def add_calls(self, sums: Sums) -> Sums:
        return sums


ALONE = Alone()
