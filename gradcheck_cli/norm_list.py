"""Gradient norms that another tool has logged, as a recording: CSV, JSON or JSON lines."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradcheck_cli.errors import RecordingError
from gradcheck_cli.records import Bools, Floats, ParameterStatistics, Probes, Recording, RunInfo, Series

NORMS = ("grad_norm", "gradient_norm", "norm")
FORM = "write one number a line, or a table with a column grad_norm or norm, as CSV or JSON"
DECIMALS = "the decimal mark is a point, and a cell with a separator in it stands in quotes"


@dataclass(frozen=True)
class Columns:
    """What a file has of "norm", "loss" and "skipped": the names of the columns and their cells, row by row.

    A row's place is the number of its `unit`, line or entry.
    """

    names: Mapping[str, str]
    cells: Mapping[str, Sequence[Any]]
    places: Sequence[int]
    unit: str

    def where(self, row: int) -> str:
        """`line 3`."""
        return f"{self.unit} {self.places[row]}"


def load_norms(path: Path) -> Recording:
    """The norms in a file as a recording without parameters and modules.

    Rows without a norm are left out; `run.notes` count them, and name the column. The loss is NaN unless the file has
    a column for it that is filled wherever there is a norm. Batch and epoch are -1: unknown. Raises RecordingError,
    with the line, for a file that cannot be read, has no such column, or holds a norm that is none.
    """
    try:
        return make_recording(str(path), read_columns(read_text(path)))
    except RecordingError as error:
        raise RecordingError(f"{path}: {error.message}", error.hint or FORM) from error


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecordingError(f"cannot read it: {error.strerror}", "--norms takes a file") from error
    except UnicodeDecodeError as error:
        raise RecordingError("it is no UTF-8 text") from error
    if not text.strip():
        raise RecordingError("it is empty")
    return text


def read_columns(text: str) -> Columns:
    """The columns of a text, whichever form it has."""
    if text.lstrip()[0] not in "[{":
        return read_csv(text)
    try:
        return read_json(json.loads(text))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise RecordingError(f"line {error.lineno}: {error.msg}", "mend the JSON") from error
    lines = parse_lines(text)
    return read_entries(list(lines.values()), list(lines), "line")


def read_csv(text: str) -> Columns:
    """A table with a header, or one column of numbers without."""
    first = text.lstrip("\n ").partition("\n")[0]
    lines = split_lines(text, next((one for one in "\t;," if one in first), ","))
    place, header = next(lines)
    chosen = {"norm": ""}
    if not all(is_number(cell) for cell in header if cell.strip()):
        chosen = choose(header)
    elif len(header) > 1:
        raise RecordingError(f"no header says which of its {len(header)} columns holds the norms")
    else:
        lines, header = itertools.chain([(place, header)], lines), [""]
    indices = [header.index(name) for name in chosen.values()]
    rows = [(place, *(cells[i] for i in indices)) for place, cells in squared(lines, len(header))]
    places, *columns = zip(*rows, strict=True) if rows else [()] * (1 + len(chosen))
    return Columns(chosen, dict(zip(chosen, columns, strict=True)), places, "line")


def split_lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank."""
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        yield from ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))
    except csv.Error as error:
        raise RecordingError(f"line {reader.line_num}: {error}") from error


def squared(lines: Iterable[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
    """Each line with as many cells as the header; raises RecordingError for a longer one."""
    for place, cells in lines:
        if len(cells) > width:
            raise RecordingError(f"line {place}: {len(cells)} cells, but {width} in the first line", DECIMALS)
        yield place, cells + [""] * (width - len(cells))


def parse_lines(text: str) -> dict[int, Any]:
    """The values of JSON lines by their numbers, without those that are blank."""
    place, values = 0, {}
    try:
        for place, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                values[place] = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordingError(f"line {place}: {error.msg}", "mend the JSON") from error
    return values


def read_json(value: Any) -> Columns:
    """A list of numbers or objects, or an object of lists."""
    if isinstance(value, list):
        return read_entries(value, range(1, len(value) + 1), "entry")
    lists = {name: cells for name, cells in value.items() if isinstance(cells, list)}
    if not lists:  # JSON lines, a single one
        return read_entries([value], [1], "line")
    chosen = choose(lists)
    cells = {kind: lists[name] for kind, name in chosen.items()}
    for kind, name in chosen.items():
        if len(cells[kind]) != len(cells["norm"]):
            lengths = f"{len(cells[kind])} entries, but {chosen['norm']!r} {len(cells['norm'])}"
            raise RecordingError(f"{name!r} has {lengths}", "give each step an entry, null where there is none")
    return Columns(chosen, cells, range(1, len(cells["norm"]) + 1), "entry")


def read_entries(entries: Sequence[Any], places: Sequence[int], unit: str) -> Columns:
    """Objects, each with the values of one step, or bare numbers."""
    if not any(isinstance(entry, dict) for entry in entries):
        return Columns({"norm": ""}, {"norm": entries}, places, unit)
    if stray := [place for place, entry in zip(places, entries, strict=True) if not isinstance(entry, dict)]:
        raise RecordingError(f"{unit} {stray[0]} is no object, but others are")
    chosen = choose(dict.fromkeys(itertools.chain.from_iterable(entries)))
    return Columns(chosen, {kind: [e.get(name) for e in entries] for kind, name in chosen.items()}, places, unit)


def choose(names: Iterable[str]) -> dict[str, str]:
    """The names of the columns for "norm" and, if there are any, "loss" and "skipped".

    Of several norms it takes the one that comes first in NORMS; of several losses the one with the same prefix
    (train/loss with train/grad_norm). Raises RecordingError that names the columns where none holds norms.
    """
    parts = {name: split_prefix(name) for name in names}
    norms = [name for wanted in NORMS for name, (_, last) in parts.items() if last == wanted]
    if not norms:
        known = ", ".join(map(repr, list(parts)[:20])) + (", ..." if len(parts) > 20 else "")
        raise RecordingError(f"no column is called grad_norm or norm; there are {known}")
    chosen = {"norm": norms[0]}
    for kind in ("loss", "skipped"):
        found = [name for name, (_, last) in parts.items() if last == kind]
        if found:
            chosen[kind] = min(found, key=lambda name: parts[name][0] != parts[norms[0]][0])
    return chosen


def split_prefix(name: str) -> tuple[str, str]:
    """`train/` and `grad_norm` of `Train/Grad Norm`, as TensorBoard, Lightning and W&B put names together."""
    prefix, last = re.fullmatch(r"(.*(?:[/.:]|\s-\s))?(.*)", name.strip().lower(), re.DOTALL).groups()  # type: ignore[union-attr]
    return prefix or "", re.sub(r"[\s-]", "_", last.strip())


def make_recording(target: str, columns: Columns) -> Recording:
    """The rows that have a norm, as a recording."""
    rows = [row for row, cell in enumerate(columns.cells["norm"]) if not is_blank(cell)]
    norms = read_floats(columns, "norm", rows)
    if not len(norms):
        raise RecordingError("there is no norm in it")
    if (norms < 0).any():
        row = rows[int(np.argmax(norms < 0))]
        raise RecordingError(f"{columns.where(row)}: {columns.cells['norm'][row]} is negative, so it is no norm")
    losses, remarks = read_losses(columns, rows)
    marks = columns.cells.get("skipped", [""] * len(columns.places))
    skipped = np.array([str(marks[row]).strip().lower() in ("true", "1", "1.0") for row in rows], dtype=np.bool_)
    if len(rows) < (total := len(columns.places)):
        remarks.insert(0, f"{total - len(rows):,} of {total:,} rows have no norm and were left out")
    if columns.names["norm"]:
        remarks.insert(0, f"norms from the column {columns.names['norm']!r}")
    run = RunInfo(target, "", "", None, steps_requested=len(rows), notes=tuple(remarks))
    return assemble(run, norms, losses, skipped)


def read_floats(columns: Columns, kind: str, rows: Sequence[int]) -> Floats:
    """The numbers in these rows of a column; raises RecordingError for a cell that is none."""
    cells, values = columns.cells[kind], []
    for row in rows:
        try:  # a bool is a number to Python
            values.append(float(None if isinstance(cells[row], bool) else cells[row]))  # type: ignore[arg-type]
        except (ValueError, TypeError, OverflowError) as error:
            raise RecordingError(f"{columns.where(row)}: {str(cells[row])[:40]!r} is no {kind}") from error
    return np.array(values, dtype=np.float64)


def read_losses(columns: Columns, rows: Sequence[int]) -> tuple[Floats, list[str]]:
    """The losses of these rows, NaN where there is no complete column of them; and what there is to say about it."""
    if "loss" not in columns.cells:
        return np.full(len(rows), np.nan), []
    if blank := sum(is_blank(columns.cells["loss"][row]) for row in rows):
        remark = f"{columns.names['loss']!r} was not used: it is empty in {blank:,} of {len(rows):,} rows with a norm"
        return np.full(len(rows), np.nan), [remark]
    return read_floats(columns, "loss", rows), []


def is_blank(cell: Any) -> bool:
    """Whether nothing was logged here."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def is_number(cell: str) -> bool:
    """Whether a text is a number, NaN and the infinities included."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def assemble(run: RunInfo, norms: Floats, losses: Floats, skipped: Bools) -> Recording:
    """A recording of nothing but these."""
    n = len(norms)
    unknown, zeros, counts = np.full(n, -1, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=np.int64)
    rest = zeros + np.nan, unknown, unknown, counts, counts
    steps, none, nowhere = np.empty(0, dtype=np.int64), np.empty((0, 0)), np.empty((0, 0), dtype=np.bool_)
    return Recording(
        run=run,
        parameters=(),
        modules=(),
        series=Series(losses, norms, norms, np.empty((n, 0)), zeros, zeros, skipped, *rest),
        statistics=ParameterStatistics(steps, none, none, none, none, none, none, none, nowhere),
        probes=Probes(steps, none, none, none, none),
        final_parameter_norm=np.empty(0),
    )
