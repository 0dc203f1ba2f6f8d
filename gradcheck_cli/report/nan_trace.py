"""What nan-trace found, as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from gradcheck_cli.records import Report
from gradcheck_cli.report import trace_wording as wording
from gradcheck_cli.report.comparison import comparison_list, old, states_of
from gradcheck_cli.report.figures import plural
from gradcheck_cli.report.lines import SYMBOLS, join, styled, wrap
from gradcheck_cli.report.operations import operation_table
from gradcheck_cli.report.origin_block import Row, block, origin_rows
from gradcheck_cli.report.rank_rows import describe_ranks
from gradcheck_cli.report.verdict import failure, since_baseline
from gradcheck_cli.report.view import View
from gradcheck_cli.tape import NanOrigin, NanTrace

SHOWN_SINKS = 8
USUAL_REASONS = "a nondeterministic kernel, the data loader, or state that the step changes outside the model"
ADVICE = "call torch.use_deterministic_algorithms(True) in the target, use num_workers=0, and run it again"


def trace_sections(report: Report, trace: NanTrace, view: View) -> list[list[Text]]:
    """Header, every operation if they are asked for, a block for each origin, notes, and what came of it."""
    return [
        trace_header(report, trace, view),
        operation_table(trace, view) if view.all_ops else [],
        *origin_sections(report, trace, view),
        note_list(trace.notes if trace.reproduced else (), view),
        comparison_list(report, view),
        failure(report, view),
        closing(report, trace, view),
    ]


def trace_header(report: Report, trace: NanTrace, view: View) -> list[Text]:
    """The target, and on a line of its own how it was run."""
    run = report.run
    title = styled(view.prose(f"gradcheck {report.command}"), "title")
    notes = [*run.notes, *(["the run was interrupted"] if run.ended == "interrupted" else [])]
    return [
        *wrap(join([title, styled(view.name(run.target))]), view.width, "  ", ""),
        *wrap(styled(view.prose(describe_run(report, trace)), "quiet"), view.width, "  "),
        *note_list(notes, view),
    ]


def describe_run(report: Report, trace: NanTrace) -> str:
    """`cpu, fp32, 38 of 1000 steps, seed 0, torch 2.13.0`."""
    run = report.run
    facts = [
        run.device,
        run.precision,
        "" if run.training else "eval mode",
        describe_steps(report, trace),
        f"{run.accumulate} batches each" if run.accumulate > 1 else "",
        f"clipped at {run.max_norm:g}" if run.max_norm is not None else "",
        f"{trace.skipped} skipped by the GradScaler" if trace.skipped and not trace.clean else "",
        "no seed" if run.seed is None else f"seed {run.seed}",
        f"torch {run.versions.get('torch', '–')}",
    ]
    ranks = f"; ranks: {describe_ranks(report.ranks)}" if report.ranks else ""
    return ", ".join(filter(None, facts)) + ranks


def describe_steps(report: Report, trace: NanTrace) -> str:
    """How many were watched, and of how many; a run that went well is short only where the data ended."""
    steps, asked = trace.steps, report.run.steps_requested
    whole = trace.clean and not report.error and report.run.ended not in ("interrupted", "failed")
    if steps >= asked:
        return count_steps(steps)
    return f"{count_steps(steps)} (all the data)" if whole else f"{steps} of {asked} steps"


def origin_sections(report: Report, trace: NanTrace, view: View) -> list[list[Text]]:
    """A title and its rows, for each origin, or for what was seen where there is none."""
    if trace.clean:
        return []
    if not trace.origins:
        event = f"step {trace.step}: {wording.describe_unexplained(trace)}"
        return [[*title(event, view), *block(unexplained_rows(trace, view), view)]]
    return [
        [*title(describe_title(report, trace, index), view), *block(origin_rows(origin, trace, view), view)]
        for index, origin in enumerate(trace.origins)
    ]


def describe_title(report: Report, trace: NanTrace, index: int) -> str:
    """`step 37: the gradient became NaN in backward`; one of several says so."""
    origin: NanOrigin = trace.origins[index]
    when = wording.describe_time(origin, report.run.accumulate)
    number = f"{index + 1} of {len(trace.origins)} independent origins" if len(trace.origins) > 1 else ""
    remarks = ", ".join(filter(None, (number, state_of(origin, report))))
    return f"{when}: {wording.describe_event(origin, trace)}" + (f" ({remarks})" if remarks else "")


def state_of(origin: NanOrigin, report: Report) -> str:
    """new, known or accepted, as its finding is; empty without a baseline."""
    own = (origin.module or None, origin.op, origin.sink)
    for finding in report.diagnosis.findings:
        if (finding.layer, finding.evidence.get("op"), finding.evidence.get("sink")) == own:
            return states_of(report).get(finding.fingerprint, "")
    return ""


def title(event: str, view: View) -> list[Text]:
    """The line that says what happened."""
    return wrap(styled(view.prose(f"{SYMBOLS['error']} {event}"), "error"), view.width, "  ", "")


def unexplained_rows(trace: NanTrace, view: View) -> Iterator[Row]:
    """What was seen, and what may have been different when the step was replayed."""
    seen = [styled(view.prose(wording.describe_sink(sink))) for sink in trace.sinks[:SHOWN_SINKS]]
    more = len(trace.sinks) - len(seen)
    yield "seen", [*seen, *([styled(f"and {more} more")] if more > 0 else [])]
    yield "error", [styled(view.name(line)) for line in trace.error.splitlines()]
    if not trace.reproduced:
        yield "perhaps", [styled(view.prose(reason)) for reason in trace.notes or (USUAL_REASONS,)]
        yield "try", [styled(view.prose(ADVICE))]


def note_list(notes: tuple[str, ...] | list[str], view: View) -> list[Text]:
    """What there is to know besides."""
    return [line for note in notes for line in wrap(styled(view.prose(note)), view.width, " " * 8, "  note  ")]


def closing(report: Report, trace: NanTrace, view: View) -> list[Text]:
    """The verdict of a clean or broken run; otherwise what the blocks before do not say by themselves."""
    lines = [styled(view.prose(f"{sign} {sentence}"), style) for sign, style, sentence in judge(report, trace)]
    return [part for line in lines for part in wrap(line, view.width, "  ", "")]


def judge(report: Report, trace: NanTrace) -> Iterator[tuple[str, str, str]]:
    """Sign, style and sentence."""
    steps = count_steps(trace.steps)
    if trace.clean and (report.error or report.run.ended == "failed"):
        yield SYMBOLS["error"], "error", f"the run failed after {steps}: everything was finite up to then"
    elif trace.clean and not trace.steps:
        yield SYMBOLS["error"], "error", "no step was watched, so nothing can be said"
    elif trace.clean:
        skipped = f" ({trace.skipped} skipped by the GradScaler)" if trace.skipped else ""
        yield "✓", "ok", f"{steps}, every loss, gradient, parameter and buffer finite{skipped}"
    if len(trace.origins) > 1:
        number = plural(len(trace.origins), "independent origin")
        yield SYMBOLS["error"], "error", f"{number}: each spoils the step without the others, so mend them all"
    yield from since_baseline(report)
    if not trace.clean and report.exit_code == 0 and not old(report):
        yield SYMBOLS["warning"], "warning", "exit code 0 all the same: --select, --ignore or --fail-on leaves this out"


def count_steps(number: int) -> str:
    """1000 steps, without a comma."""
    return f"{number} step" if number == 1 else f"{number} steps"
