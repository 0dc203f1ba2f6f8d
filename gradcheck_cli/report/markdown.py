"""The report in GitHub-flavoured Markdown, for step summaries and comments: the verdict first, never too large."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradcheck_cli.records import Report
from gradcheck_cli.report.clip import unknown
from gradcheck_cli.report.comparison import short_entries
from gradcheck_cli.report.header import ending, facts
from gradcheck_cli.report.markdown_clip import answer_parts, basis_parts
from gradcheck_cli.report.markdown_findings import finding_parts, not_evaluated_parts
from gradcheck_cli.report.markdown_layers import layer_parts
from gradcheck_cli.report.markdown_ranks import rank_parts
from gradcheck_cli.report.markdown_trace import trace_parts
from gradcheck_cli.report.markup import code, fence, finish, prose, row, sign, table_head
from gradcheck_cli.report.nan_trace import describe_run
from gradcheck_cli.report.outcome import outcome
from gradcheck_cli.report.parts import Part, join
from gradcheck_cli.report.view import View

LIMIT = 1024 * 1024 - 1
SEE_ALL = "`-o report.json` writes all of it"


def render_markdown(report: Report, view: View) -> str:
    """The page in less than a MiB of UTF-8, GitHub's limit for the summary of a step."""
    return render_within(report, view, LIMIT)


def render_within(report: Report, view: View, room: int) -> str:
    """The page in at most `room` bytes of UTF-8: what has no room is named, the last sections first."""
    wide = replace(view, unicode=True, color=False)
    parts = [part for one in (report, *report.others) for part in page(one, wide)]
    if report.others:
        parts.insert(0, overview(report, wide))
    finished = (
        Part(finish(one.head, view), tuple(finish(item, view) for item in one.items), finish(one.tail, view), one.what)
        for one in parts
    )
    return join(finished, room, SEE_ALL)


def overview(report: Report, view: View) -> Part:
    """The verdict on each model of a script that trains several, or on each of several targets."""
    lines = [
        f"- {code(' '.join(filter(None, (one.run.target, one.run.model))), view)}: {verdict(one, view)}\n"
        for one in (report, *report.others)
    ]
    return Part(f"## gradcheck {report.command}: {len(lines)} reports\n\n", tuple(lines), "\n", "verdict")


def page(report: Report, view: View) -> Iterator[Part]:
    """What matters most comes first."""
    of = f" of {code(report.run.model, view)}" if report.run.model else ""
    heading = f"## gradcheck {report.command} {code(report.run.target, view)}{of}\n\n"
    yield Part(f"{heading}**{verdict(report, view)}**\n\n")
    if report.error:
        yield Part(f"{fence(report.error.splitlines(), view)}\n")
    if report.trace is not None:
        yield from trace_parts(report, report.trace, view)
    elif report.clip is not None and report.clip.verdict != "fix-first":
        yield from answer_parts(report, report.clip, view)
        yield from finding_parts(report, view)
    else:
        yield from finding_parts(report, view)
    if report.clip is not None:
        if report.clip.verdict == "fix-first":
            yield from answer_parts(report, report.clip, view)
        yield from basis_parts(report, report.clip, view)
    yield from comparison_parts(report, view)
    yield from layer_parts(report, view)
    yield from rank_parts(report, view)
    yield from not_evaluated_parts(report, view)
    yield from run_parts(report, view)


def verdict(report: Report, view: View) -> str:
    """Sign and sentence."""
    symbol, sentence = outcome(report)
    return f"{sign(symbol)} {prose(sentence, view)}"


def comparison_parts(report: Report, view: View) -> Iterator[Part]:
    """What became of the baseline."""
    if report.comparison is not None:
        head = f"### Since the baseline {code(report.comparison.baseline, view)}\n\n"
        lines = (f"- {label}: {prose('; '.join(lines), view)}\n" for label, lines in short_entries(report) if lines)
        yield Part(head, tuple(lines), "\n", "line")


def run_parts(report: Report, view: View) -> Iterator[Part]:
    """What there is to know about the run, and how it was made."""
    notes = tuple(f"> {prose(note, view)}\n\n" for note in [*ending(report), *trace_notes(report)])
    yield Part("", notes, "", "note")
    if report.trace is not None:
        yield Part(f"How it was run: {prose(describe_run(report, report.trace), view)}\n\n")
        return
    left_out = unknown(report) if report.clip is not None else set()
    rows = [row((label, prose(content, view))) for label, content in facts(report) if label not in left_out]
    head = f"<details><summary>How it was run</summary>\n\n{table_head(('', ''), (False, False))}"
    yield Part(head, tuple(rows), "\n</details>\n\n", "fact")


def trace_notes(report: Report) -> tuple[str, ...]:
    """What nan-trace has to say besides; where the step was not reproduced, its section has that."""
    return report.trace.notes if report.trace and report.trace.reproduced else ()
