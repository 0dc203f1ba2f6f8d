"""What to paste: a line for a loop of one's own, and what Lightning and Transformers take."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from gradcheck_cli.clip_advice import ClipAdvice, ClipGroup
from gradcheck_cli.records import Report
from gradcheck_cli.report import figures
from gradcheck_cli.report.clip_tables import table
from gradcheck_cli.report.clip_wording import rate, span
from gradcheck_cli.report.lines import styled, wrap
from gradcheck_cli.report.view import View

GROUPS = "parameter groups, each with a value of its own (share: of the squared norm)"
GROUP_TITLES = ("group", "parameters", "elements", "max_norm", "95% interval", "share", "when clipped")
UNSCALE = "scaler.unscale_(optimizer)"
ELSEWHERE = "or, where a trainer has the loop"
PLACE = "between loss.backward() and optimizer.step():"


def code_to_paste(report: Report, advice: ClipAdvice, view: View) -> list[Text]:
    """One value for all parameters."""
    if advice.max_norm is None:
        return []
    loop, trainers = loop_lines(report, advice.max_norm), trainer_lines(advice.max_norm)
    return [styled(PLACE), *code(loop, view), styled(f"{ELSEWHERE}:"), *code(trainers, view)]


def loop_lines(report: Report, max_norm: float) -> list[str]:
    """For a loop of one's own."""
    call = f"torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm={figures.norm(max_norm)})"
    return [*unscale(report), call]


def trainer_lines(max_norm: float) -> list[str]:
    """For those who have none."""
    value = figures.norm(max_norm)
    return [f"Trainer(gradient_clip_val={value})  # Lightning", f"TrainingArguments(max_grad_norm={value})  # HF"]


def group_values(report: Report, advice: ClipAdvice, view: View) -> list[Text]:
    """A value for each parameter group of the optimizer, and how to clip them apart; empty for a single one."""
    if len(advice.groups) < 2:
        return []
    rows = [[styled(view.prose(cell)) for cell in group_cells(group)] for group in advice.groups]
    loose = looseness(advice)
    return [
        *wrap(styled(GROUPS, "title"), view.width),
        *table(GROUP_TITLES, rows, view),
        *(wrap(styled(view.prose(loose)), view.width) if loose else []),
        *group_code(report, advice, view),
    ]


def group_cells(group: ClipGroup) -> tuple[str, ...]:
    """What stands below GROUP_TITLES."""
    return (
        str(group.index),
        f"{group.parameters:,}",
        figures.count(group.numel),
        figures.norm(group.max_norm),
        span(group.interval) if group.interval else "–",
        rate(group.share),
        rate(group.share_clipped),
    )


def looseness(advice: ClipAdvice) -> str:
    """What clipping the groups apart at the global value would let through; empty where that is not known."""
    if advice.looseness is None or advice.max_norm is None:
        return ""
    joint = figures.norm(advice.looseness * advice.max_norm)
    return (
        f"clipping each group at {figures.norm(advice.max_norm)} is looser than clipping all together: their joint norm"
        f" may reach {joint}, sqrt({round(advice.looseness**2)}) = {figures.plain(advice.looseness)} times as much"
    )


def group_code(report: Report, advice: ClipAdvice, view: View) -> list[Text]:
    """How to clip them apart."""
    lines = group_lines(report, advice)
    return [*wrap(styled(f"to clip them apart, {PLACE}"), view.width), *code(lines, view)]


def group_lines(report: Report, advice: ClipAdvice) -> list[str]:
    """Three lines; a break within the braces leaves them valid."""
    values = ", ".join(f"{group.index}: {figures.norm(group.max_norm)}" for group in advice.groups)
    return [
        *unscale(report),
        f"for i, max_norm in {{{values}}}.items():",
        '    params = optimizer.param_groups[i]["params"]',
        "    torch.nn.utils.clip_grad_norm_(params, max_norm)",
    ]


def unscale(report: Report) -> Iterator[str]:
    """Gradients that are still scaled must not be compared with max_norm."""
    if report.run.uses_scaler:
        yield UNSCALE


def code(lines: list[str], view: View) -> list[Text]:
    """Lines of Python, indented alike; a long one is broken at a space, deep enough to be read as its continuation."""
    return [part for line in lines for part in wrap(styled(line, "ok"), view.width, " " * 10, "  ")]
