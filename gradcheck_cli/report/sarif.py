"""The report as SARIF 2.1.0, for code scanning and editors.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from gradcheck_cli import __version__
from gradcheck_cli.records import Finding, Location, NotEvaluated, Report, RuleInfo, Severity
from gradcheck_cli.report.comparison import states_of, why_spared
from gradcheck_cli.report.header import ending
from gradcheck_cli.report.json_document import encode
from gradcheck_cli.report.outcome import outcome
from gradcheck_cli.report.places import path_in_repository, place_of
from gradcheck_cli.report.rule_list import rules_mentioned
from gradcheck_cli.report.view import View

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
SUPPRESSED = {"accepted": "accepted", "uncertain": "underReview"}
ROOT = "%SRCROOT%"
Object = dict[str, Any]


def render_sarif(report: Report, view: View) -> str:
    """One run for each model, indented by two, in ASCII, with a newline at its end."""
    whole = replace(view, unicode=True)  # JSON in ASCII holds every sign, whatever the terminal
    runs = [make_run(one, whole) for one in (report, *report.others)]
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": runs}, indent=2, allow_nan=False) + "\n"


def make_run(report: Report, view: View) -> Object:
    """The rules that ran, how the run went, and a result for each finding."""
    rules = rules_mentioned(report)
    driver = {"name": "gradcheck", "version": __version__, "rules": [describe_rule(rule) for rule in rules]}
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": run_id(report, view)},
        "originalUriBaseIds": {ROOT: {"description": {"text": "The root of the repository."}}},
        "columnKind": "unicodeCodePoints",
        "invocations": [describe_invocation(report, view)],
        "results": [describe_finding(finding, report, rules, view) for finding in report.diagnosis.findings],
    }


def run_id(report: Report, view: View) -> str:
    """`gradcheck/profile/train.py:build/`: what tells this run's results from others; a service adds a number to it."""
    return "/".join(
        ["gradcheck", report.command, view.name(" ".join((report.run.target, report.run.model)).strip()), ""]
    )


def describe_rule(rule: RuleInfo) -> Object:
    """Its metadata; the documentation is Markdown, which reads well as plain text, too."""
    summary = rule.summary or rule.name
    documentation = rule.documentation or summary
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": summary},
        "fullDescription": {"text": summary},
        "help": {"text": documentation, "markdown": documentation},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
    }


def describe_invocation(report: Report, view: View) -> Object:
    """Whether gradcheck did its work, and what it has to say of that: the error, notes, rules that could not judge."""
    failed = [notification("error", report.error, view)] if report.error else []
    notes = [notification("note", note, view) for note in ending(report)]
    return {
        "executionSuccessful": report.exit_code != 2,
        "exitCode": report.exit_code,
        "toolExecutionNotifications": [
            *failed,
            *notes,
            *(skipped(one, view) for one in report.diagnosis.not_evaluated),
        ],
        "properties": encode({"verdict": outcome(report)[1], "versions": report.run.versions, **environment(report)}),
    }


def environment(report: Report) -> Object:
    """How it was run."""
    run = report.run
    return {"device": run.device, "precision": run.precision, "steps": len(report.series), "seed": run.seed}


def notification(level: str, text: str, view: View) -> Object:
    """Something about the run rather than the model."""
    return {"level": level, "message": message(text, view)}


def skipped(rule: NotEvaluated, view: View) -> Object:
    """A rule that could not judge."""
    return {**notification("note", f"not evaluated: {rule.reason}", view), "associatedRule": {"id": rule.code}}


def message(text: str, view: View) -> Object:
    """Plain text, in which `](` would begin the address of a link."""
    lines = (view.name(line) for line in text.expandtabs(4).splitlines())
    return {"text": "\n".join(lines).replace("](", "] (") or "-"}


def describe_finding(finding: Finding, report: Report, rules: Sequence[RuleInfo], view: View) -> Object:
    """A result; with a baseline it says whether it is new, and an accepted one is suppressed with its reason."""
    text = finding.message + (f"\nFix: {finding.hint}" if finding.hint else "")
    return {
        "ruleId": finding.code,
        "ruleIndex": [rule.code for rule in rules].index(finding.code),
        "level": LEVELS[finding.severity],
        "message": message(text, view),
        "locations": [locate(finding, place_of(finding, report), view)],
        "partialFingerprints": {"gradcheck/v1": finding.fingerprint},
        **against_baseline(finding, report, view),
        "properties": encode(
            {name: getattr(finding, name) for name in ("layer", "step", "evidence", "because", "explains")}
        ),
    }


def locate(finding: Finding, place: Location | None, view: View) -> Object:
    """The line of source as far as it is known, and the layer."""
    named = view.name(finding.layer or "(model)")
    where: Object = {"logicalLocations": [{"fullyQualifiedName": named, "kind": "module"}]}
    if place is not None:
        region = {"startLine": max(1, place.line)}
        where["physicalLocation"] = {"artifactLocation": artifact(place.file, view), "region": region}
    return where


def artifact(file: str, view: View) -> Object:
    """A file of the repository by its address within it, any other one by an absolute address."""
    path = path_in_repository(file, view)
    if PurePath(path).is_absolute():
        return {"uri": "file:///" + quote(path.lstrip("/"), errors="replace")}
    return {"uri": quote(path, errors="replace"), "uriBaseId": ROOT}


def against_baseline(finding: Finding, report: Report, view: View) -> Object:
    """Nothing without a baseline."""
    state, comparison = states_of(report).get(finding.fingerprint, ""), report.comparison
    if comparison is None:
        return {}
    compared: Object = {"baselineState": "new" if state in ("new", "uncertain") else "unchanged"}
    if state in SUPPRESSED:
        reason = comparison.accepted.get(finding.fingerprint) or why_spared(finding, comparison)
        justification = message(reason, view)["text"]
        compared["suppressions"] = [{"kind": "external", "status": SUPPRESSED[state], "justification": justification}]
    return compared
