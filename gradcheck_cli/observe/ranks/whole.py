"""Statistics of whole tensors, of those that each rank measured of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradcheck_cli.observe.draft import Draft
from gradcheck_cli.observe.peers import Values
from gradcheck_cli.observe.ranks.shards import Shards


class Whole:
    """Puts together the statistics of several steps at once."""

    def __init__(self, shards: Shards, trainable: Any) -> None:
        self._shards, self._trainable = shards, trainable

    def make(self, drafts: Sequence[Draft], values: Sequence[Values]) -> None:
        """Replace in `values` what was measured of parts."""
        self._put_statistics(drafts, values)
        places = list(self._columns(drafts, values))
        table = np.zeros((len(self._shards.counts), len(places)))
        for column, (one, name, rows) in enumerate(places):
            table[rows, column] = one[name] if name in ("dot", "square") else np.square(one[name])
        table = self._shards.add(table)
        for column, (one, name, rows) in enumerate(places):
            one[name] = table[rows, column] if name in ("dot", "square") else np.sqrt(table[rows, column])
        self._put_largest(values)

    def _put_statistics(self, drafts: Sequence[Draft], values: Sequence[Values]) -> None:
        tables = np.zeros((len(drafts), len(self._shards.counts), 6))
        for number, (draft, one) in enumerate(zip(drafts, values, strict=True)):
            if "statistics" in one:
                tables[number, draft.present] = one["statistics"]
        tables = self._shards.statistics(tables)
        for number, (draft, one) in enumerate(zip(drafts, values, strict=True)):
            if "statistics" in one:
                one["statistics"] = tables[number, draft.present]

    def _columns(self, drafts: Sequence[Draft], values: Sequence[Values]) -> Iterator[tuple[Values, str, Any]]:
        everything = np.arange(len(self._shards.counts))
        for draft, one in zip(drafts, values, strict=True):
            rows = {"weights": self._trainable, "updates": self._trainable, "clipped": np.array(draft.present)}
            rows.update(dot=everything, square=everything)
            yield from ((one, name, rows[name]) for name in rows if name in one)

    def _put_largest(self, values: Sequence[Values]) -> None:
        probed = [one for one in values if "largest" in one]
        if not probed:
            return
        table = np.zeros((len(self._shards.counts), len(probed)))
        for number, one in enumerate(probed):
            table[self._trainable, number] = one["largest"]
        table = self._shards.largest(table)
        for number, one in enumerate(probed):
            one["largest"] = table[self._trainable, number]
