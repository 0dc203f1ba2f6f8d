"""What recommend-clip answers, in the terminal's words, as lines, code and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice
from gradcheck_cli.records import Report
from gradcheck_cli.report.clip_answer import judgement, limits, promise, value
from gradcheck_cli.report.clip_code import (
    ELSEWHERE,
    GROUP_TITLES,
    GROUPS,
    PLACE,
    group_cells,
    group_lines,
    loop_lines,
    looseness,
    trainer_lines,
)
from gradcheck_cli.report.clip_details import facts
from gradcheck_cli.report.clip_tables import (
    CANDIDATE_TITLES,
    CANDIDATES,
    DOMINATES,
    LAYER_TITLES,
    LAYERS,
    VERIFIED,
    VERIFIED_TITLES,
    candidate_row,
    layer_row,
    verified_row,
)
from gradcheck_cli.report.html.words import VIEW


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its heading; `chosen` is the row that stands out, or -1."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    chosen: int = -1


@dataclass(frozen=True)
class Passage:
    """Lines of code, and where they belong."""

    where: str
    lines: Sequence[str]


@dataclass(frozen=True)
class ClipView:
    """`lines` with their style; `facts` by label."""

    lines: Sequence[tuple[str, str]]
    code: Sequence[Passage]
    tables: Sequence[Table]
    groups: Sequence[Passage]
    facts: Sequence[tuple[str, Sequence[str]]]
    remarks: Sequence[str]


def clip_view(report: Report, advice: ClipAdvice) -> ClipView:
    """Everything but the verdict, findings and charts. What clipping would only hide gets no code to paste."""
    answer = [*value(advice), *promise(advice), *limits(report, advice), *judgement(advice)]
    tables = (verified(advice), groups(advice), candidates(advice), layers(advice))
    return ClipView(
        [(text.strip(), style) for text, style in answer],
        code(report, advice) if advice.verdict != "fix-first" else [],
        [table for table in tables if table.rows],
        [Passage(f"to clip them apart, {PLACE}", group_lines(report, advice))] if len(advice.groups) > 1 else [],
        [(label, lines) for label, lines in facts(advice) if any(lines)],
        [*advice.caveats, *advice.notes],
    )


def code(report: Report, advice: ClipAdvice) -> list[Passage]:
    """What to paste, if there is a value."""
    if advice.max_norm is None:
        return []
    loop, trainers = loop_lines(report, advice.max_norm), trainer_lines(advice.max_norm)
    return [Passage(PLACE, loop), Passage(f"{ELSEWHERE}:", trainers)]


def candidates(advice: ClipAdvice) -> Table:
    """What limits a replay stands below, once for all that share it."""
    told: dict[str, list[str]] = {}
    for one in advice.candidates:
        told.setdefault(one.note, []).append(one.name)
    rows = [cells(candidate_row(one, advice, VIEW)) for one in advice.candidates]
    chosen = next((i for i, row in enumerate(rows) if row[0].endswith("(recommended)")), -1)
    notes = [f"{', '.join(names)}: {note}" for note, names in told.items() if note]
    return Table(CANDIDATES, CANDIDATE_TITLES, rows, notes, chosen)


def layers(advice: ClipAdvice) -> Table:
    """All of them, the largest share first."""
    ordered = sorted(advice.layers, key=lambda layer: -layer.share if layer.share == layer.share else 1.0)
    note = []
    if advice.dominant is not None:
        name = VIEW.name(advice.dominant or "the root module")
        note = [f"{name} {DOMINATES}"]
    return Table(LAYERS, LAYER_TITLES, [cells(layer_row(one, VIEW)) for one in ordered], note)


def verified(advice: ClipAdvice) -> Table:
    """The runs of --verify."""
    return Table(VERIFIED, VERIFIED_TITLES, [cells(verified_row(run, VIEW)) for run in advice.verified])


def groups(advice: ClipAdvice) -> Table:
    """Parameter groups, each with a value of its own."""
    if len(advice.groups) < 2:
        return Table("", (), ())
    notes = [note] if (note := looseness(advice)) else []
    return Table(GROUPS, GROUP_TITLES, [group_cells(group) for group in advice.groups], notes)


def cells(row: Iterable[Text]) -> list[str]:
    """Without their styles."""
    return [cell.plain for cell in row]
