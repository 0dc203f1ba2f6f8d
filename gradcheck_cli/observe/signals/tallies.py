"""What was measured in one step, by column of a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from gradcheck_cli.observe.signals.recurrence import positions
from gradcheck_cli.observe.signals.sampling import Term
from gradcheck_cli.observe.transfer import Value
from gradcheck_cli.records import Floats

Cells = Sequence[float | None] | Floats
"""A place's values in one step."""
Calls = Sequence[Sequence[float | None]]
"""The same, call by call."""


@dataclass(frozen=True)
class Layout:
    """What a step left behind: for each `<table>.<column>`, call by call, its values."""

    terms: Mapping[str, Sequence[Sequence[Term]]]

    def tensors(self) -> list[Tensor]:
        """The values that are still on a device, in order."""
        terms = chain.from_iterable(chain.from_iterable(self.terms.values()))
        return [term for term in terms if isinstance(term, Tensor)]

    def unpack(self, numbers: Floats) -> dict[str, Calls]:
        """The values of each place, call by call, None where there is none; `numbers` (n,) are those of `tensors`."""
        if not numbers.size:
            return {**self.terms}  # type: ignore[dict-item]
        arrived = iter(numbers.ravel().tolist())

        def filled(call: Sequence[Term]) -> list[float | None]:
            return [next(arrived) if isinstance(term, Tensor) else term for term in call]

        return {name: [*map(filled, calls)] for name, calls in self.terms.items()}


def joined(calls: Calls) -> Cells:
    """(values,): the means over the calls, NaN or None where there is none."""
    if len(calls) == 1:
        return calls[0]
    table = np.array(calls, dtype=np.float64)
    known = ~np.isnan(table)
    with np.errstate(all="ignore"):
        mean: Floats = np.where(known, table, 0).sum(0) / known.sum(0)
    return mean


def total_of(calls: Calls) -> float:
    """The sum of the first value over all calls."""
    return sum([value for value, *_ in calls if value is not None])


class Tallies:
    """Columns are numbered over the whole run, in the order in which their places were first seen."""

    def __init__(self) -> None:
        self.columns: dict[str, dict[Hashable, int]] = {}
        self._terms: dict[str, list[Sequence[Term]]] = {}
        self._series: dict[int, list[Tensor]] = {}
        self._calls: dict[int, dict[int, Tensor]] = {}

    def column(self, table: str, place: Hashable) -> int:
        """The column of a place."""
        known = self.columns.setdefault(table, {})
        return known.setdefault(place, len(known))

    def add(self, table: str, place: Hashable, values: Sequence[Term]) -> None:
        """One call's values, as many for each call."""
        self.add_to(f"{table}.{self.column(table, place)}", values)

    def add_to(self, name: str, values: Sequence[Term]) -> None:
        """The same, by `<table>.<column>`."""
        self._terms.setdefault(name, []).append(values)

    def add_series(self, place: Hashable, values: Tensor) -> None:
        """The mean squares of the gradient at the time steps of one call."""
        self._series.setdefault(self.column("time", place), []).append(values)

    def add_call(self, place: Hashable, call: int, value: Tensor) -> None:
        """The mean square of the gradient at one call of a cell."""
        self._calls.setdefault(self.column("time", place), {})[call] = value

    def take(self) -> tuple[dict[str, Value], Layout]:
        """All since the last time: `numbers` (n,) on a device, a series for each `time.<column>`, and the layout."""
        values: dict[str, Value] = {f"time.{column}": averaged(terms) for column, terms in self._series.items()}
        for column, calls in self._calls.items():
            chosen = positions(max(calls) + 1)
            nothing = torch.full_like(next(iter(calls.values())), torch.nan)
            values[f"time.{column}"] = torch.stack([calls.get(call, nothing) for call in chosen])
        layout = Layout(self._terms)
        numbers = layout.tensors()
        if numbers:
            values["numbers"] = gathered(numbers)
        self._terms, self._series, self._calls = {}, {}, {}
        return values, layout


def gathered(numbers: list[Tensor]) -> Value:
    """All of them in one vector, without waiting for a device: on an accelerator, if there is one among them."""
    home = next((number.device for number in numbers if not number.is_cpu), None)
    if home is None:
        return np.array([float(number) for number in numbers])
    return torch.stack([number.to(home, non_blocking=True) for number in numbers])


def averaged(terms: list[Tensor]) -> Tensor:
    """The mean of tensors of one shape, without NaN; the first of those whose shapes differ."""
    alike = [term for term in terms if term.shape == terms[0].shape]
    return alike[0] if len(alike) == 1 else torch.stack(alike).nanmean(0)
