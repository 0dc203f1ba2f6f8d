"""What nan-trace found, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck_cli.records import Report
from gradcheck_cli.report import trace_wording as wording
from gradcheck_cli.report.lines import SYMBOLS
from gradcheck_cli.report.markup import code, fence, prose, sign
from gradcheck_cli.report.nan_trace import describe_title, unexplained_rows
from gradcheck_cli.report.origin_block import name_origin
from gradcheck_cli.report.parts import Part
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import Frame, NanOrigin, NanTrace


def trace_parts(report: Report, trace: NanTrace, view: View) -> Iterator[Part]:
    """A section for each origin, or for what was seen where there is none."""
    if trace.clean:
        return
    cross = sign(SYMBOLS["error"])
    if not trace.origins:
        yield Part("", tuple(seen(trace, view)), "\n", "line")
    for index, origin in enumerate(trace.origins):
        title = f"### {cross} {prose(describe_title(report, trace, index), view)}\n\n"
        yield Part(
            (title if len(trace.origins) > 1 or report.comparison else "") + describe_origin(origin, trace, view),
            what="origin",
        )


def seen(trace: NanTrace, view: View) -> Iterator[str]:
    """The values that were not finite, and what may have been different in the replay."""
    for label, lines in unexplained_rows(trace, view):
        yield from (f"- {label}: {prose(line.plain, view)}\n" for line in lines)


def describe_origin(origin: NanOrigin, trace: NanTrace, view: View) -> str:
    """The operation and its line, why, the repair and its proof, and the way that the value took."""
    because = origin.explanation or "no entry of the catalogue fits: look at what went in"
    paragraphs = [
        where(origin, view),
        fence(trace.error.splitlines(), view) if trace.error else "",
        prose(because.replace("\n", " "), view) + "\n",
        f"**Fix:**\n\n{fence(origin.fix.splitlines(), view, 'python')}" if origin.fix else "",
        "".join(f"- {label}: {line}\n" for label, line in remarks(origin, trace, view)),
    ]
    return "".join(f"{paragraph}\n" for paragraph in paragraphs if paragraph)


def where(origin: NanOrigin, view: View) -> str:
    """`aten::sqrt` in module `norm`, and the line of source."""
    module = f" in module {code(origin.module, view)}" if origin.module else ""
    frame = f", {place(origin.frame, view)}" if origin.frame else "\n"
    return f"Origin: {code(name_origin(origin), view)}{module}{frame}"


def place(frame: Frame, view: View) -> str:
    """The line, where it was called from, and the code."""
    line = code(f"{frame.location.file}:{frame.location.line}", view)
    function = f" in {code(frame.function, view)}" if frame.function else ""
    caller = frame.called_from
    called = f", called from {code(f'{caller.file}:{caller.line}', view)}" if caller else ""
    source = f"\n{fence(frame.code.splitlines(), view, 'python')}" if frame.code else ""
    return f"{line}{function}{called}\n{source}"


def remarks(origin: NanOrigin, trace: NanTrace, view: View) -> Iterator[tuple[str, str]]:
    """Label and Markdown of what else is known."""
    if not origin.cause:
        for name, state in origin.input_stats:
            yield "input", prose(f"{name}: {wording.describe_state(state)}", view)
    yield "proof", prose(wording.describe_proof(origin, trace), view)
    if origin.samples:
        yield "samples", prose(wording.describe_samples(origin), view)
    if origin.spread[1]:
        yield "spread", prose(wording.describe_spread(origin), view)
    yield "path", prose(wording.describe_path(origin), view)
    for contributor in origin.contributors:
        yield "fed by", prose(contributor, view)
    if origin.cause:
        yield "more", code(f"gradcheck rules {origin.cause}", view)
