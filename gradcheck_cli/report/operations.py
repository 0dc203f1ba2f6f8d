"""Every operation of a replayed step, with the range of what came out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.text import Text

from gradcheck_cli.report import figures
from gradcheck_cli.report.columns import GAP, Column
from gradcheck_cli.report.layer_table import left_out_note, table_line
from gradcheck_cli.report.lines import SYMBOLS, styled, wrap
from gradcheck_cli.report.trace_wording import short
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import Frame, NanTrace, Operation

LEGEND = "✗ finite values went in and others came out, • a constant that is not finite was written"


def operation_table(trace: NanTrace, view: View) -> list[Text]:
    """A line for each operation, in order, below a heading for each phase; what has no room is named."""
    operations = trace.operations
    if not operations:
        return [styled("no step was replayed, so there are no operations to list", "quiet")]
    columns, left_out = fit(make_columns(trace, view), view.width - 1)
    titles = [styled(column.title[1], "quiet") for column in columns]
    lines = narrow(table_line(Text(), titles, columns, 1), view)
    for row, (operation, phase) in enumerate(zip(operations, headings(operations), strict=True)):
        lines += [styled(view.name(phase), "title")] if phase else []
        cells = [column.cells[row] for column in columns]
        lines += narrow(table_line(mark(operation, view), cells, columns, 1), view)
    legend = wrap(styled(view.prose(LEGEND), "quiet"), view.width, "  ", "")
    return lines + legend + left_out_note(left_out, view)


def headings(operations: Sequence[Operation]) -> Iterator[str]:
    """For each operation its phase where a new one begins, else ""."""
    accumulated = any(operation.micro_batch for operation in operations)
    before = None
    for operation in operations:
        stretch = (operation.phase, operation.micro_batch)
        name = f"{operation.phase} of micro-batch {operation.micro_batch}" if accumulated else operation.phase
        yield "" if stretch == before else name
        before = stretch


def make_columns(trace: NanTrace, view: View) -> list[Column]:
    """All columns in the order in which they are read."""
    operations = trace.operations
    origins = {origin.operation for origin in trace.origins}

    def column(title: str, rank: int, cell: Callable[[Operation], str], right: bool = True) -> Column:
        texts = tuple(styled(view.name(cell(operation)), style(operation, origins)) for operation in operations)
        return Column(("", title), rank, texts, right)

    return [
        column("op", 0, lambda operation: name(operation, origins), right=False),
        column("module", 3, lambda operation: forward_of(operation, trace).module, right=False),
        column("line", 1, lambda operation: place(forward_of(operation, trace).frame), right=False),
        column("low", 0, lambda operation: extreme(min, (state.low for state in operation.outputs))),
        column("high", 0, lambda operation: extreme(max, (state.high for state in operation.outputs))),
        column("zeros", 2, lambda operation: count(state.zeros for state in operation.outputs)),
        column("nan", 0, lambda operation: count(state.nan for state in operation.outputs)),
        column("inf", 0, lambda operation: count(state.inf for state in operation.outputs)),
    ]


def fit(columns: Sequence[Column], room: int) -> tuple[list[Column], list[Column]]:
    """The columns that find room in so many cells, and those that do not; the highest rank goes first."""
    kept = [column for column in columns if column.width]
    left_out: list[Column] = []
    while sum(column.width for column in kept) > room and any(column.rank for column in kept):
        left_out.append(max(kept, key=lambda column: column.rank))
        kept.remove(left_out[-1])
    return kept, left_out


def narrow(line: Text, view: View) -> list[Text]:
    """The line, broken where even the least has no room."""
    return [line] if line.cell_len <= view.width else wrap(line, view.width, " " * (1 + GAP), "")


def mark(operation: Operation, view: View) -> Text:
    """Whether something that is not finite began here."""
    if operation.writes_constant and not operation.state.finite:
        return styled(view.prose(SYMBOLS["info"]), "info")
    return styled(view.prose(SYMBOLS["error"]) if born(operation) else "", "error")


def born(operation: Operation) -> bool:
    """Whether finite values went in and others came out; an allocator, which reads nothing, makes nothing."""
    inputs = [operand.state.finite for operand in operation.inputs]
    return bool(inputs) and all(inputs) and not operation.state.finite


def style(operation: Operation, origins: set[int]) -> str:
    """The origin stands out, what is not finite is seen."""
    return "error" if operation.index in origins else "" if operation.state.finite else "warning"


def name(operation: Operation, origins: set[int]) -> str:
    """`sqrt`, or `mylib::sqrt`, and what is special about it."""
    ours = short(operation.name) if operation.name.startswith("aten::") else operation.name
    remarks = [
        word for word, so in (("origin", operation.index in origins), ("recomputed", operation.recomputed)) if so
    ]
    return f"{ours} ({', '.join(remarks)})" if remarks else ours


def forward_of(operation: Operation, trace: NanTrace) -> Operation:
    """The operation whose derivative this is, or itself."""
    return trace.operations[operation.forward] if operation.forward >= 0 else operation


def place(frame: Frame | None) -> str:
    """`norm.py:42`."""
    return f"{frame.location.file.replace(chr(92), '/').rpartition('/')[2]}:{frame.location.line}" if frame else ""


def extreme(choose: Callable[[Iterable[float]], float], values: Iterable[float]) -> str:
    """Three digits of the least or greatest; blank where nothing is finite."""
    known = [value for value in values if not math.isnan(value)]
    return figures.plain(choose(known)) if known else ""


def count(numbers: Iterable[int]) -> str:
    """The sum, blank for none."""
    return f"{total:,}" if (total := sum(numbers)) else ""
