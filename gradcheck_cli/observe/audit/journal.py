"""The loop's events, kept within bounds: the first windows in full, later ones where they are unlike those before."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gradcheck_cli.audit import LoopEvent
from gradcheck_cli.observe.audit.sites import location_of
from gradcheck_cli.observe.transfer import to_host
from gradcheck_cli.records import Floats

FULL_WINDOWS = 200
ALIKE = 3
MOST_NOTES = 20_000
SAME = 1e-2
"""Two sampled gradients, one a multiple of the other, may differ by this much in half precision."""


class Note(NamedTuple):
    """An event while it may still be on the device; `values` are fields of LoopEvent, tensors among them.

    A `look` compares gradients `now` with what was known, `before`; what it found is decided on the host.
    """

    kind: str
    optimizers: tuple[int, ...]
    site: int
    line: tuple[str, int] | None
    measured: bool
    values: dict[str, Any]


class Journal:
    """Notes by window: a window ends with a step of some optimizer."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, ...]] = []  # fields of a Note, which takes longer to make than all the rest
        self._window: list[tuple[Any, ...]] = []
        self._windows = 0
        self._left_out = 0
        self._alike: dict[tuple[Any, ...], int] = {}
        self._signature: list[tuple[Any, ...]] = []
        self.measuring = True
        """Whether values of gradients are still looked at."""

    def add(
        self, kind: str, optimizers: tuple[int, ...], site: int, line: tuple[str, int] | None, values: dict[str, Any]
    ) -> None:
        """Write down an event, the fields of a Note."""
        self._window.append((kind, optimizers, site, line, self.measuring, values))
        if not self.measuring:
            self._signature.append((kind, optimizers, site, values.get("inactive")))

    def end_window(self) -> None:
        """Keep the window that just ended, or leave it out."""
        signature = tuple(self._signature)
        self._alike[signature] = alike = self._alike.get(signature, 0) + 1
        if self.measuring or (alike <= ALIKE and len(self._kept) <= MOST_NOTES):
            self._kept += [*gap(self._left_out), *self._window]
            self._left_out = 0
        else:
            self._left_out += 1
        self._windows += 1
        self._window, self._signature = [], []
        self.measuring = self._windows < FULL_WINDOWS

    def events(self) -> tuple[LoopEvent, ...]:
        """All that was kept, as plain values; waits for the device."""
        notes = [Note(*fields) for fields in (*self._kept, *gap(self._left_out), *self._window)]
        places = [(note, name) for note in notes for name, value in note.values.items() if isinstance(value, Tensor)]
        arrays = to_host([note.values[name] for note, name in places])
        found: dict[tuple[int, str], Floats] = {
            (id(note), name): array for (note, name), array in zip(places, arrays, strict=True)
        }
        return tuple(event for note in notes if (event := settle(note, found)) is not None)


def gap(left_out: int) -> Sequence[tuple[Any, ...]]:
    """An event that stands for windows which were left out, if any were."""
    return [("gap", (), -1, None, True, {"count": left_out})] if left_out else []


def settle(note: Note, found: dict[tuple[int, str], Floats]) -> LoopEvent | None:
    """A note as an event; None for a look that found nothing."""
    values = {name: found.get((id(note), name), value) for name, value in note.values.items()}
    kind = note.kind
    if kind == "look":
        kind, found_out = compare(*(as_array(values.pop(name)) for name in ("before", "now")))
        values |= found_out
    if not kind:
        return None
    plain = {name: plainly(name, value) for name, value in values.items()}
    return LoopEvent(kind, note.optimizers, location_of(note.line), note.site, note.measured, **plain)


def as_array(sample: Floats | bytes | None) -> Floats | None:
    """A sample of float32 numbers that was taken as bytes."""
    return np.frombuffer(sample, dtype=np.float32).astype(np.float64) if isinstance(sample, bytes) else sample


def plainly(name: str, value: Any) -> Any:
    """An array of one number as that number."""
    if isinstance(value, np.ndarray):
        return int(value) if name == "count" else float(value)
    return value


def compare(before: Floats | None, now: Floats | None) -> tuple[str, dict[str, Any]]:
    """What the script did to gradients by hand: the event's kind, "" for nothing, and its values."""
    if now is None or not np.any(now):
        return ("zero" if before is not None and np.any(before) else ""), {}
    if before is None or before.shape != now.shape:
        return "edit", {"ratio": nan}
    if np.array_equal(before, now, equal_nan=True):
        return "", {}
    if (replaced := count_bad(before) - count_bad(now)) > 0:
        return "replace", {"count": replaced}
    return "edit", {"ratio": ratio_of(before, now)}


def count_bad(values: Floats) -> int:
    return int(np.count_nonzero(~np.isfinite(values)))


def ratio_of(before: Floats, now: Floats) -> float:
    """The number by which all were multiplied; NaN where they were not all multiplied by one."""
    largest = np.abs(before).max()
    if not (np.isfinite(largest) and np.isfinite(now).all() and largest > 0):
        return nan
    one, other = before / largest, now / largest
    ratio = float(one @ other / (one @ one))
    return ratio if np.linalg.norm(other - ratio * one) <= SAME * np.linalg.norm(other) else nan
