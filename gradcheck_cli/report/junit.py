"""The report as JUnit XML, which CI services show as tests: a case for each rule and place, a suite for each model.

What fails here is what fails the run; all else that was found passes, with a note.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from gradcheck_cli.records import Finding, Report, RuleInfo, Severity
from gradcheck_cli.report.comparison import judged, why_spared
from gradcheck_cli.report.outcome import outcome
from gradcheck_cli.report.places import path_in_repository, place_of
from gradcheck_cli.report.rule_list import rules_mentioned
from gradcheck_cli.report.view import View

DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def render_junit(report: Report, view: View) -> str:
    """A document that junit-10.xsd of Jenkins allows; what XML cannot hold is escaped visibly."""
    root = Element("testsuites", name="gradcheck")
    root.extend(make_suite(one, severities_that_fail(one), view) for one in (report, *report.others))
    indent(root)
    content: bytes = tostring(root, encoding="utf-8" if view.unicode else "us-ascii", xml_declaration=False)
    return f"{DECLARATION}{content.decode('utf-8')}\n"


def severities_that_fail(report: Report) -> set[Severity]:
    """Those at or above `fail_on`."""
    if report.fail_on == "never":
        return set()
    return {severity for severity in Severity if severity.rank >= Severity(report.fail_on).rank}


def make_suite(report: Report, failing: Collection[Severity], view: View) -> Element:
    """The run itself, then every rule."""
    rules = (case for rule in rules_mentioned(report) for case in rule_cases(rule, report, failing, view))
    cases = [run_case(report, view), *rules]
    suite = Element("testsuite", name=class_name(report, view), tests=str(len(cases)))
    for name, tag in COUNTED.items():
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    seconds = float(report.series.seconds.sum())
    if math.isfinite(seconds):
        suite.set("time", f"{seconds:.3f}")
    properties = SubElement(suite, "properties")
    for name, value in describe_run(report):
        SubElement(properties, "property", name=name, value=view.prose(value))
    suite.extend(cases)
    return suite


def class_name(report: Report, view: View) -> str:
    """`profile train.py:build`, and which model of several."""
    return view.name(" ".join(filter(None, (report.command, report.run.target, report.run.model))))


def describe_run(report: Report) -> Iterator[tuple[str, str]]:
    """What the numbers depend on, and the verdict."""
    run = report.run
    yield "verdict", " ".join(outcome(report))
    yield from (("device", run.device), ("precision", run.precision), ("steps", str(len(report.series))))
    yield "seed", "none" if run.seed is None else str(run.seed)
    yield from run.versions.items()
    if report.comparison is not None:
        yield "baseline", report.comparison.baseline


def run_case(report: Report, view: View) -> Element:
    """Passed where the run came to its end, or was ended on purpose."""
    case = Element("testcase", classname=class_name(report, view), name="the run")
    if report.error or report.run.ended == "failed":
        error = SubElement(case, "error", type="failed", message=view.prose(outcome(report)[1]))
        error.text = "\n".join(view.prose(line) for line in report.error.expandtabs(4).splitlines())
    return case


def rule_cases(rule: RuleInfo, report: Report, failing: Collection[Severity], view: View) -> Iterator[Element]:
    """A case for each place that has findings, one for what was not judged; one that passes where there is neither."""
    name = f"{rule.code} {rule.name}"
    findings = sorted((one for one in report.diagnosis.findings if one.code == rule.code), key=fingerprint)
    reasons = [one.reason for one in report.diagnosis.not_evaluated if one.code == rule.code]
    for _, alike in groupby(findings, key=fingerprint):
        yield finding_case(name, list(alike), report, failing, view)
    if reasons or not findings:
        case = make_case(f"{name} [not evaluated]" if findings else name, report, view)
        if reasons:
            SubElement(case, "skipped", message=view.prose("; ".join(reasons)))
        yield case


def fingerprint(finding: Finding) -> str:
    """What cases are told apart by."""
    return finding.fingerprint


def make_case(name: str, report: Report, view: View) -> Element:
    """A case that passes."""
    return Element("testcase", classname=class_name(report, view), name=view.name(name))


def finding_case(
    name: str, alike: Sequence[Finding], report: Report, failing: Collection[Severity], view: View
) -> Element:
    """`GC101 vanishing-gradient [blocks.*.fc]`, failed if it fails the run; else what was found is in its output."""
    worst = max(alike, key=lambda finding: finding.severity.rank)
    case = make_case(name if worst.layer is None else f"{name} [{worst.layer or '(model)'}]", report, view)
    text = "\n\n".join(describe(one, report, view) for one in alike)
    if worst.severity in failing and worst in judged(report):
        failure = SubElement(case, "failure", type=worst.severity.value, message=view.prose(worst.message))
        failure.text = text
    else:
        SubElement(case, "system-out").text = "\n".join([view.prose(why_passed(worst, report)), text])
    return case


def why_passed(finding: Finding, report: Report) -> str:
    """Spared by the baseline, or not severe enough."""
    if report.comparison is None or finding in judged(report):
        return f"{finding.severity.value}, which does not fail this run"
    return why_spared(finding, report.comparison)


def describe(finding: Finding, report: Report, view: View) -> str:
    """Message, place and fix, a line each."""
    place = place_of(finding, report)
    where = [
        f"at {path_in_repository(place.file, view)}:{place.line}" if place else "",
        "" if finding.step is None else f"step {finding.step}",
    ]
    lines = [finding.message, ", ".join(filter(None, where)), f"fix: {finding.hint}" if finding.hint else ""]
    return "\n".join(view.prose(part) for line in lines for part in line.expandtabs(4).splitlines())
