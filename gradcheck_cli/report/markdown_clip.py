"""What recommend-clip answers, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Report
from gradcheck_cli.report import clip_code, clip_tables
from gradcheck_cli.report.clip_answer import judgement, limits, promise, value
from gradcheck_cli.report.clip_details import facts
from gradcheck_cli.report.markup import code, fence, prose, row, table_head
from gradcheck_cli.report.parts import Part
from gradcheck_cli.report.view import View

Rows = Sequence[Sequence[Text]]


def answer_parts(report: Report, advice: ClipAdvice, view: View) -> Iterator[Part]:
    """The value with its promise, and where there is one, what to paste."""
    lines = [*value(advice), *promise(advice), *limits(report, advice), *judgement(advice)]
    yield Part("", tuple(f"- {prose(line.strip(), view)}\n" for line, _ in lines), "\n", "line")
    if advice.max_norm is not None and advice.verdict != "fix-first":
        loop = fence(clip_code.loop_lines(report, advice.max_norm), view, "python")
        trainers = fence(clip_code.trainer_lines(advice.max_norm), view, "python")
        where = prose(clip_code.PLACE.capitalize(), view)
        yield Part(f"{where}\n\n{loop}\n{clip_code.ELSEWHERE.capitalize()}:\n\n{trainers}\n")


def basis_parts(report: Report, advice: ClipAdvice, view: View) -> Iterator[Part]:
    """The tables, and what the answer rests on."""
    verified = [clip_tables.verified_row(run, view) for run in advice.verified]
    yield from table_parts(clip_tables.VERIFIED, clip_tables.VERIFIED_TITLES, verified, view)
    yield from group_parts(report, advice, view)
    yield from candidate_parts(advice, view)
    yield from share_parts(advice, view)
    rests = [f"- {label}: {prose('; '.join(lines), view)}\n" for label, lines in facts(advice) if lines]
    yield Part("<details><summary>What this rests on</summary>\n\n", tuple(rests), "\n</details>\n\n", "line")
    notes = tuple(f"> {prose(one, view)}\n\n" for one in (*advice.caveats, *advice.notes))
    yield Part("", notes, "", "note")


def table_parts(
    title: str, titles: Sequence[str], rows: Rows, view: View, more: str = "", show: Callable[[str, View], str] = prose
) -> Iterator[Part]:
    """A table below its title, `more` behind it; `show` is for the first column. None where it has no rows."""
    if rows:
        head = table_head(titles, [False] + [True] * (len(titles) - 1))
        items = (row([show(name.plain, view), *(prose(cell.plain, view) for cell in cells)]) for name, *cells in rows)
        yield Part(f"**{prose(title, view).capitalize()}**\n\n{head}", tuple(items), f"\n{more}", "row")


def group_parts(report: Report, advice: ClipAdvice, view: View) -> Iterator[Part]:
    """A value for each parameter group, and how to clip them apart; none for a single one."""
    if len(advice.groups) < 2:
        return
    rows = [[Text(cell) for cell in clip_code.group_cells(group)] for group in advice.groups]
    yield from table_parts(clip_code.GROUPS, clip_code.GROUP_TITLES, rows, view)
    lines = fence(clip_code.group_lines(report, advice), view, "python")
    loose = prose(clip_code.looseness(advice), view)
    yield Part(f"{loose}\n\nTo clip them apart, {clip_code.PLACE}\n\n{lines}\n")


def candidate_parts(advice: ClipAdvice, view: View) -> Iterator[Part]:
    """What other choices would have done, with what limits the replay."""
    rows = [clip_tables.candidate_row(candidate, advice, view) for candidate in advice.candidates]
    notes = [f"- {prose(f'{one.name}: {one.note}', view)}\n" for one in advice.candidates if one.note]
    more = f"{''.join(notes)}\n" if notes else ""
    yield from table_parts(clip_tables.CANDIDATES, clip_tables.CANDIDATE_TITLES, rows, view, more)


def share_parts(advice: ClipAdvice, view: View) -> Iterator[Part]:
    """The layers with the largest shares of the squared norm, and whether one has most of it."""
    shown, rest = clip_tables.split_layers(advice)
    more = f"{prose(clip_tables.describe_rest(rest), view)}\n\n" if rest else ""
    if advice.dominant is not None:
        more += f"{code(advice.dominant or 'the root module', view)} {clip_tables.DOMINATES}\n\n"
    rows = [clip_tables.layer_row(layer, view) for layer in shown]
    yield from table_parts(clip_tables.LAYERS, clip_tables.LAYER_TITLES, rows, view, more, code)
