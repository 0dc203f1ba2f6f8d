"""One origin, a row for each thing that is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from gradcheck_cli.report import trace_wording as wording
from gradcheck_cli.report.lines import join, pad, styled, wrap
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import Frame, NanOrigin, NanTrace

COLUMN = 13
Row = tuple[str, Sequence[Text]]


def origin_rows(origin: NanOrigin, trace: NanTrace, view: View) -> Iterator[Row]:
    """Label and lines; a row that does not apply is left out."""

    def prose(content: str) -> list[Text]:
        return [styled(view.prose(line)) for line in content.splitlines()]

    yield "origin", [styled(view.name(name_origin(origin)), "title")]
    if origin.frame:
        yield "line", source_lines(origin.frame, origin.module, view)
    if trace.error:
        yield "error", [styled(view.name(line)) for line in trace.error.splitlines()]
    yield "because", prose(origin.explanation or "no entry of the catalogue fits: look at what went in")
    if not origin.cause:
        states = ((name, wording.describe_state(state)) for name, state in origin.input_stats)
        yield "inputs", [line for name, state in states for line in prose(f"{name}: {state}")]
    yield "fix", [styled(view.name(line), "ok") for line in origin.fix.expandtabs(4).splitlines()]
    yield "proof", [styled(view.prose(wording.describe_proof(origin, trace)), "" if origin.verified else "warning")]
    yield "samples", prose(wording.describe_samples(origin)) if origin.samples else []
    yield "spread", prose(wording.describe_spread(origin)) if origin.spread[1] else []
    yield "path", prose(wording.describe_path(origin))
    yield "fed by", [line for contributor in origin.contributors for line in prose(contributor)]
    if origin.cause:
        yield "more", [styled(view.name(f"gradcheck rules {origin.cause}"), "quiet")]


def name_origin(origin: NanOrigin) -> str:
    """The operator and what of it, or what came from outside."""
    if not origin.op:
        return wording.describe_source(origin.source) or "unknown"
    if not origin.autograd_node:
        return origin.op
    if origin.autograd_node.endswith("Backward"):  # those that torch generates end in a number
        return f"{origin.op} in {origin.autograd_node}, an autograd.Function"
    return f"{origin.op} ({origin.autograd_node}), dL/dx of {wording.short(origin.op)}"


def source_lines(frame: Frame, module: str, view: View) -> list[Text]:
    """Where it stands, in which module, and the code, with the running part underlined where that helps."""
    place = f"{frame.location.file}:{frame.location.line}" + (f" in {frame.function}" if frame.function else "")
    lines = [join([styled(view.name(place)), styled(view.name(module), "info")], "   ")]
    if frame.code:
        lines += code_lines(frame, view)
    if frame.called_from:
        caller = f"called from {frame.called_from.file}:{frame.called_from.line}"
        lines.append(styled(view.name(caller)))
    return lines


def code_lines(frame: Frame, view: View) -> list[Text]:
    """`42 │ return x / y`."""
    room = view.width - COLUMN
    gutter = f"{frame.location.line} {view.prose('│')} "
    code = view.name(frame.code)
    lines = wrap(styled(code), room, " " * len(gutter), gutter)
    part = view.name(frame.expression)
    if len(lines) == 1 and part != code and code.count(part) == 1 and code.isascii():
        lines.append(Text(" " * (len(gutter) + code.index(part))) + styled("^" * len(part), "error"))
    return lines


def block(rows: Iterator[Row], view: View) -> list[Text]:
    """The rows below each other, what they say in one column; a row without lines is left out."""
    return [line for label, lines in rows for line in labelled(label, lines, view)]


def labelled(label: str, lines: Sequence[Text], view: View) -> list[Text]:
    """A row: the label once, the lines beside it."""
    wrapped = [part for line in lines for part in wrap(line, view.width - COLUMN)]
    leads = [pad(styled(f"  {label}", "quiet"), COLUMN), *[Text(" " * COLUMN)] * len(wrapped)]
    return [lead + part for lead, part in zip(leads, wrapped, strict=False)]
