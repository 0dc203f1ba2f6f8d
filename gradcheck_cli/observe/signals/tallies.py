"""What was measured in one step, by column of a table."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from gradcheck_cli.observe.signals.recurrence import positions
from gradcheck_cli.observe.transfer import Value


class Tallies:
    """Columns are numbered over the whole run, in the order in which their places were first seen."""

    def __init__(self) -> None:
        self.columns: dict[str, dict[Hashable, int]] = {}
        self._terms: dict[tuple[str, int], list[Tensor]] = {}
        self._calls: dict[int, dict[int, Tensor]] = {}

    def column(self, table: str, place: Hashable) -> int:
        """The column of a place."""
        known = self.columns.setdefault(table, {})
        return known.setdefault(place, len(known))

    def add(self, table: str, place: Hashable, values: Tensor) -> None:
        """One call's values; those of several calls in a step are averaged."""
        self._terms.setdefault((table, self.column(table, place)), []).append(values)

    def add_call(self, place: Hashable, call: int, value: Tensor) -> None:
        """The mean square of the gradient at one call of a cell."""
        self._calls.setdefault(self.column("time", place), {})[call] = value

    def take(self) -> dict[str, Value]:
        """Everything measured since the last time, by `<table>.<column>`."""
        for column, calls in self._calls.items():
            chosen = positions(max(calls) + 1)
            nothing = torch.full_like(next(iter(calls.values())), torch.nan)
            self._terms[("time", column)] = [torch.stack([calls.get(call, nothing) for call in chosen])]
        values = {f"{table}.{column}": averaged(terms) for (table, column), terms in self._terms.items()}
        self._terms, self._calls = {}, {}
        return dict(values)


def averaged(terms: list[Tensor]) -> Tensor:
    """The mean of tensors of one shape, without NaN; the first of those whose shapes differ."""
    alike = [term for term in terms if term.shape == terms[0].shape]
    return alike[0] if len(alike) == 1 else torch.stack(alike).nanmean(0)
