"""The last line: what came of it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from gradcheck_cli.blocks import make_blocks
from gradcheck_cli.records import Report, Severity
from gradcheck_cli.report.comparison import judged, old
from gradcheck_cli.report.figures import plural
from gradcheck_cli.report.lines import SYMBOLS, styled, wrap
from gradcheck_cli.report.view import View


def failure(report: Report, view: View) -> list[Text]:
    """What the run died of, each line indented."""
    lines = report.error.expandtabs().splitlines()
    return [part for line in lines for part in wrap(styled(view.prose(line.rstrip())), view.width, "  ")]


def verdict(report: Report, view: View) -> list[Text]:
    """One sentence, with a sign and a colour that say the same."""
    sign, style, sentence = judge(report)
    return wrap(styled(view.prose(f"{sign} {sentence}"), style), view.width, "  ", "")


def judge(report: Report) -> tuple[str, str, str]:
    """Sign, style and sentence."""
    layers, steps = plural(len(report.layers), "layer"), steps_done(report)
    faults = describe_faults(report)
    rest = (old(report), tally(report, Severity.INFO, ending=""), skipped(report))
    if report.error or report.run.ended == "failed":
        recorded = f"{faults or 'no error or warning'} up to then" if len(report.series) else "nothing was recorded"
        return SYMBOLS["error"], "error", f"the run failed after {steps}: {recorded}"
    if not len(report.series):
        return SYMBOLS["error"], "error", "no step was recorded, so nothing can be said of the gradients"
    if faults:
        worst = "error" if tally(report, Severity.ERROR) else "warning"
        where = "the loop" if report.command == "audit" else layers
        return SYMBOLS[worst], worst, f"{faults} in {where} over {steps}" + remarks(*rest)
    if old(report):
        where = "the loop" if report.command == "audit" else f"{layers} over {steps}"
        return "✓", "ok", f"nothing new in {where} since the baseline" + remarks(*rest)
    if report.command == "audit":
        return "✓", "ok", "nothing is wrong with the loop" + remarks(steps, *rest)
    reached = sum(layer.grad_rms > 0 for layer in report.layers)
    if reached == 0:
        return SYMBOLS["warning"], "warning", f"gradients reach none of {layers}" + remarks(steps)
    everywhere = f"all {layers}" if reached > 1 else "the only layer"
    through = everywhere if reached == len(report.layers) else f"{reached} of {layers}"
    verb = "reach" if flow_in_doubt(report) else "flow through"
    return "✓", "ok", f"gradients {verb} {through}" + remarks(steps, *rest)


def since_baseline(report: Report) -> Iterator[tuple[str, str, str]]:
    """Sign, style and sentence on what is new, for answers that say nothing of it; none without a baseline."""
    if report.comparison is None:
        return
    new = ", ".join(filter(None, (tally(report, Severity.ERROR), tally(report, Severity.WARNING))))
    sign, style = (SYMBOLS["error"], "error") if new else ("✓", "ok")
    yield sign, style, f"{new or 'nothing new'} since the baseline" + remarks(old(report))


def flow_in_doubt(report: Report) -> bool:
    """Whether a rule on the flow through the layers (GC1xx) has something to say, or could not judge."""
    diagnosis = report.diagnosis
    codes = [finding.code for finding in diagnosis.findings] + [rule.code for rule in diagnosis.not_evaluated]
    return any(code.startswith("GC1") for code in codes)


def steps_done(report: Report) -> str:
    """50 steps, or 32 of 50 steps."""
    steps, asked = len(report.series), report.run.steps_requested
    return plural(steps, "step") if steps >= asked else f"{steps:,} of {plural(asked, 'step')}"


def tally(report: Report, severity: Severity, ending: str = "s") -> str:
    """How many findings of a severity decide: "2 errors", with a baseline "2 new errors"; empty for none."""
    number = sum(finding.severity is severity for finding in judged(report))
    new = "new " if report.comparison else ""
    return f"{number} {new}{severity.value}{ending if number > 1 else ''}" if number else ""


def describe_faults(report: Report) -> str:
    """2 errors, 1 warning from 1 cause; without the causes where each finding is its own, empty for none."""
    faults = ", ".join(filter(None, [tally(report, Severity.ERROR), tally(report, Severity.WARNING)]))
    number = sum(finding.severity is not Severity.INFO for finding in judged(report))
    blocks = [block for block in make_blocks(judged(report)) if block.severity_rank]
    causes = sum(len(block.roots) for block in blocks)
    return f"{faults} from {plural(causes, 'cause')}" if causes < number else faults


def skipped(report: Report) -> str:
    """How many rules could not judge; empty for none."""
    number = len({rule.code for rule in report.diagnosis.not_evaluated})
    return f"{number} not evaluated" if number else ""


def remarks(*parts: str) -> str:
    """In brackets, if there are any."""
    known = ", ".join(filter(None, parts))
    return f" ({known})" if known else ""
