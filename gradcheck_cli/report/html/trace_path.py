"""The way of a non-finite value, from the operation that made it to where it was seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradcheck_cli.report import trace_wording as wording
from gradcheck_cli.report.html.words import VIEW, clean
from gradcheck_cli.report.operations import forward_of
from gradcheck_cli.report.origin_block import name_origin, origin_rows
from gradcheck_cli.tape import Frame, NanOrigin, NanTrace, Operand, Operation, Sink

LONGEST = 14
HEAD, TAIL = 8, 5
ELSEWHERE = ("line", "error", "because", "fix", "path", "fed by", "origin")


@dataclass(frozen=True)
class Excerpt:
    """A line of source, in three parts of which the middle one was running; `caller` is the user's line."""

    place: str
    line: int
    before: str
    running: str
    after: str
    caller: str = ""


@dataclass(frozen=True)
class Node:
    """A station: `kind` is input, origin, carrier, gap or sink; `state` says what its values were."""

    kind: str
    name: str
    phase: str = ""
    module: str = ""
    state: str = ""
    excerpt: Excerpt | None = None


@dataclass(frozen=True)
class OriginView:
    """One origin: what went in, the path from it, and the other things that are known of it."""

    title: str
    inputs: Sequence[Node]
    path: Sequence[Node]
    facts: Sequence[tuple[str, Sequence[str]]]
    explanation: str
    fix: str


def origin_view(origin: NanOrigin, trace: NanTrace, title: str) -> OriginView:
    """Of one origin."""
    rows = origin_rows(origin, trace, VIEW)
    return OriginView(
        title,
        [*input_nodes(origin)],
        [*path_nodes(origin, trace)],
        [(label, [line.plain for line in lines]) for label, lines in rows if lines and label not in ELSEWHERE],
        origin.explanation,
        origin.fix,
    )


def input_nodes(origin: NanOrigin) -> Iterator[Node]:
    """What the operation read, and non-finite constants that took part."""
    for argument, state in origin.input_stats:
        yield Node("input", argument, state=wording.describe_state(state))
    for contributor in origin.contributors:
        yield Node("input", contributor)


def path_nodes(origin: NanOrigin, trace: NanTrace) -> Iterator[Node]:
    """The origin, what carried its values on, where they were seen. Of a long path the middle is left out."""
    trail = follow(origin, trace)
    yield origin_node(origin, trace)
    carriers = [carrier_node(operation, trace) for operation in trail]
    if not carriers:  # the tape does not tell: what nan-trace named
        carriers = [Node("gap" if name == "…" else "carrier", wording.short(name)) for name in origin.path[1:-1]]
    if len(carriers) > LONGEST:
        gap = Node("gap", f"{len(carriers) - HEAD - TAIL} more operations")
        carriers = [*carriers[:HEAD], gap, *carriers[-TAIL:]]
    yield from carriers
    sink = find_sink(origin, trace)
    yield Node("sink", origin.sink or "a value", state=wording.describe_state(sink.state) if sink else "")


def origin_node(origin: NanOrigin, trace: NanTrace) -> Node:
    """Where it began."""
    known = 0 <= origin.operation < len(trace.operations)
    state = wording.describe_state(trace.operations[origin.operation].state) if known else ""
    return Node("origin", name_origin(origin), origin.phase, origin.module, state, excerpt(origin.frame))


def carrier_node(operation: Operation, trace: NanTrace) -> Node:
    """An operation that passed it on; a derivative stands where its forward operation does."""
    forward = forward_of(operation, trace)
    name = wording.short(forward.name)
    return Node(
        "carrier",
        f"{name} ({operation.node})" if operation.node else name,
        operation.phase,
        forward.module,
        wording.describe_state(operation.state),
        excerpt(forward.frame or operation.frame),
    )


def follow(origin: NanOrigin, trace: NanTrace) -> list[Operation]:
    """The operations between origin and sink, back from the sink over the first writer of what is bad.

    Empty where that does not lead to the origin: through masks, say, which only nan-trace can judge.
    """
    sink = find_sink(origin, trace)
    if sink is None or not trace.operations:
        return []
    trail: list[Operation] = []
    writer = first_writer([sink], len(trace.operations))
    while writer is not None and writer != origin.operation:
        trail.append(trace.operations[writer])
        writer = first_writer(trail[-1].inputs, writer)
    return trail[::-1] if writer is not None or origin.operation < 0 else []


def first_writer(values: Sequence[Operand | Sink], before: int) -> int | None:
    """The earliest operation that wrote NaN into any of them, else Inf; None for what came from outside."""
    for writers in ([i for one in values for i in one.nan_from], [i for one in values for i in one.inf_from]):
        if known := [index for index in writers if index < before]:
            return min(known) if min(known) >= 0 else None
    return None


def find_sink(origin: NanOrigin, trace: NanTrace) -> Sink | None:
    """The one that the origin names."""
    return next((sink for sink in trace.sinks if name_sink(sink) == origin.sink), None)


def name_sink(sink: Sink) -> str:
    """As `NanOrigin.sink` has it."""
    if sink.what == "gradient":
        return f"gradient of {sink.name}"
    return f"{sink.what} {sink.name}" if sink.what in ("parameter", "buffer") and sink.name else sink.what


def excerpt(frame: Frame | None) -> Excerpt | None:
    """The line with the part of it that was running."""
    if frame is None:
        return None
    code, part = clean(frame.code), clean(frame.expression)
    before, running, after = code.partition(part) if part and part != code and code.count(part) == 1 else (code, "", "")
    place = f"{frame.location.file}:{frame.location.line}" + (f" in {frame.function}" if frame.function else "")
    caller = f"{frame.called_from.file}:{frame.called_from.line}" if frame.called_from else ""
    return Excerpt(place, frame.location.line, before, running, after, caller)
