"""A report as a section of a baseline, and two such sections side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace

from gradcheck_cli.baseline import AcceptedFinding, KnownFinding, Measures, RunConditions, Section
from gradcheck_cli.diagnose.baseline.change import Change
from gradcheck_cli.diagnose.baseline.measures import measure, measure_clipping, measure_names
from gradcheck_cli.diagnose.baseline.novelty import find_counterpart, remember
from gradcheck_cli.diagnose.baseline.rules import SHIFT_RULES
from gradcheck_cli.diagnose.baseline.rules.depth_slope_shift import has_flattened
from gradcheck_cli.diagnose.baseline.rules.gradient_shift import has_come_nearer, shift_of
from gradcheck_cli.diagnose.baseline.rules.lost_gradient import has_lost
from gradcheck_cli.diagnose.selection import by_pattern
from gradcheck_cli.records import Finding, Report, RunInfo

SHIFTS = tuple(rule.code for rule in SHIFT_RULES)


def make_section(report: Report) -> Section:
    """What a baseline holds of a report."""
    return Section(
        command=report.command,
        model=report.run.model,
        run=describe_run(report.run),
        findings=tuple(remember(one) for one in report.diagnosis.findings if one.code not in SHIFTS),
        measures=measure_report(report),
    )


def measure_report(report: Report) -> Measures:
    """The measures of profile or of recommend-clip; of the others the layers' names alone, so that they are matched."""
    if report.recording is None:
        return Measures()
    if report.command == "profile":
        return measure(report.recording)
    names = Measures(layers=tuple(measure_names(report.recording)))
    return replace(names, clipping=measure_clipping(report.clip)) if report.clip else names


def describe_run(run: RunInfo) -> RunConditions:
    """What must be the same in both runs for their measures to be alike."""
    return RunConditions(run.steps_requested, run.precision, run.accumulate, run.training)


def find_gone(then: Section, findings: Sequence[Finding], codes: Collection[str], change: Change) -> Iterator[str]:
    """Fingerprints of what the baseline knows or has accepted, and the run no longer has; `codes` were judged."""
    remembered: tuple[KnownFinding | AcceptedFinding, ...] = (*then.findings, *then.accepted)
    still = {one.fingerprint for one in remembered if find_counterpart(one, findings, change)}
    for name in dict.fromkeys(one.fingerprint for one in remembered):
        if name not in still and name.partition(":")[0] in codes:
            yield name


def say_better(then: Section, findings: Sequence[Finding], change: Change) -> Iterator[str]:
    """What has improved beyond its noise, in sentences."""
    for known in then.findings:
        now = find_counterpart(known, findings, change)
        if now and known.severity.rank > now.severity.rank:
            yield f"{known.fingerprint} is {now.severity.value} now, it was {known.severity.value}"
    for old, new in change.slopes():
        if abs(old.decades - new.decades) > change.slope_limit(old, new) and has_flattened(old, new):
            yield f"the depth slope of {new.group} is {new.decades:.1f} decades, it was {old.decades:.1f}"
    for before, after in change.shares():
        if before.share - after.share > change.share_limit(before, after):
            where = after.layer or "the input"
            yield f"{after.share:.0%} {after.what} in the {after.function} behind {where}, it was {before.share:.0%}"
    yield from say_better_layers(change)


def say_better_layers(change: Change) -> Iterator[str]:
    """Which layers got a gradient, or one that is more like the others'."""
    gained = [now.name for then, now in change.layers() if has_lost(now, then)]
    if gained:
        yield f"there is a gradient now at {list_names(gained)}"
    nearer = [
        now.name
        for then, now in change.layers()
        if abs(shift_of(then, now)) > change.gradient_limit(then, now) and has_come_nearer(then, now)
    ]
    if nearer:
        yield f"the gradient has come nearer to that of the other layers at {list_names(nearer)}"


def list_names(names: Sequence[str]) -> str:
    """The names, like ones as a pattern."""
    return ", ".join(by_pattern(names))


def say_not_compared(then: Section, report: Report) -> Iterator[str]:
    """What makes the comparison weaker than it looks, in sentences."""
    before, now = then.run, describe_run(report.run)
    for field in fields(before):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            yield f"{field.name} is {new} in this run and {old} in the baseline: measures may differ for that alone"
    skipped = {one.code: one.reason for one in report.diagnosis.not_evaluated}
    for known in then.findings:
        if reason := skipped.get(known.fingerprint.partition(":")[0]):
            yield f"{known.fingerprint} was not evaluated: {reason}"
    if then.measures.clipping and report.clip and report.clip.max_norm is None:
        yield "this run gives no max_norm to compare"
